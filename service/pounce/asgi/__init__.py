"""Calls ASGI applications, for every protocol alike."""
