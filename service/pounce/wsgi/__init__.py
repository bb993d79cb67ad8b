"""The one place that calls WSGI applications (PEP 3333)."""
