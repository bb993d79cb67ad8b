"""The version of pounce, which packages and commands show."""

__version__ = "0.1.0"
