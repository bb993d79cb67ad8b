"""What both ends of the control socket know: who offers it, and who calls it."""

SOCKET = "control"
"""The socket's name in the service's runtime directory."""

INTERFACE = "io.pounce.Service"
"""The Varlink interface offered there; `varlinkctl introspect` shows it."""
