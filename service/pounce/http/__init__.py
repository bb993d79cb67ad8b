"""What all HTTP versions share: connections, fields, heads and the access log."""
