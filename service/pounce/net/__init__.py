"""Addresses, listening sockets and what proxies say about clients."""
