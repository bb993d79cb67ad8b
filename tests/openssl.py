"""A TLS client that can do what Python's cannot: libssl itself, by ctypes (SSL_key_update(3))."""

import ctypes
import ctypes.util
import socket
from functools import cache
from typing import Any

REQUESTED = 1  # SSL_KEY_UPDATE_REQUESTED: the server answers with a KeyUpdate of its own
AVAILABLE = ctypes.util.find_library("ssl") is not None


@cache
def _library() -> Any:
    name = ctypes.util.find_library("ssl")
    assert name is not None, "there is no libssl"
    library = ctypes.CDLL(name)
    for function in ("SSL_CTX_new", "TLS_client_method", "SSL_new"):
        getattr(library, function).restype = ctypes.c_void_p
    for function in ("SSL_CTX_new", "SSL_new", "SSL_connect", "SSL_do_handshake", "SSL_free"):
        getattr(library, function).argtypes = [ctypes.c_void_p]
    for function in ("SSL_set_fd", "SSL_key_update"):
        getattr(library, function).argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.SSL_write.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    return library


class Session:
    """TLS on *sock*, a blocking socket that stays the caller's; no certificate is verified."""

    def __init__(self, sock: socket.socket) -> None:
        library = _library()
        self._ssl = library.SSL_new(library.SSL_CTX_new(library.TLS_client_method()))
        library.SSL_set_fd(self._ssl, sock.fileno())
        if library.SSL_connect(self._ssl) != 1:
            raise ConnectionError("no TLS handshake")

    def write(self, data: bytes) -> bool:
        """Send *data* in a record; false if the connection has ended."""
        return bool(_library().SSL_write(self._ssl, data, len(data)) == len(data))

    def update_keys(self) -> bool:
        """Send a KeyUpdate that asks for another; false if the connection has ended."""
        library = _library()
        if library.SSL_key_update(self._ssl, REQUESTED) != 1:
            return False
        return bool(library.SSL_do_handshake(self._ssl) == 1)
