"""The one place that calls the application."""
