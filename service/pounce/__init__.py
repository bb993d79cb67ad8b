"""pounce: Python ASGI applications as native Linux services."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("pounce")
