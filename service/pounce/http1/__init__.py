"""The HTTP/1.1 engine: bytes in, frozen events out, and the connection that serves them."""
