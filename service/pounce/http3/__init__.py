"""HTTP/3 over QUIC: datagrams in, requests out; no sockets, no supervisor."""
