"""What happens to a service, who hears of it, and the log."""
