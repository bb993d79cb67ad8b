"""pounce: Python ASGI applications as native Linux services."""

__all__ = ["__version__"]

__version__ = "0.1.0"
