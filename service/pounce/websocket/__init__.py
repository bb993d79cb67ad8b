"""WebSocket over HTTP/1.1 (RFC 6455, RFC 7692)."""
