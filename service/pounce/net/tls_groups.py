"""The groups in which TLS agrees on keys: those of Mozilla's intermediate profile.

By itself OpenSSL offers X448 and secp521r1 as well, which are slow and no stronger in practice.
From Python 3.15 on there is SSLContext.set_groups. Before, there is set_ecdh_curve, which leaves a
single group: without X25519, or without P-256, too many clients fail or are slow. A file in
OPENSSL_CONF would replace the system's, and change the application's own connections too. So
pounce calls OpenSSL's SSL_CTX_set1_groups_list (which is a macro for SSL_CTX_ctrl) by ctypes, where
it knows how Python stores the SSL_CTX: in these versions it is the first field of the object. In
any other case OpenSSL's own groups stay.
"""

import ctypes
import ssl
import sys
from functools import cache
from typing import Any

_GROUPS = "X25519:prime256v1:secp384r1"

# Clients that offer a post-quantum group keep what it protects, where OpenSSL (3.5) has one.
_WITH_POST_QUANTUM = f"X25519MLKEM768:{_GROUPS}"

_SET_GROUPS_LIST = 92  # SSL_CTRL_SET_GROUPS_LIST, <openssl/ssl.h>
_KNOWN_LAYOUT = (3, 11) <= sys.version_info < (3, 15)


def choose_groups(context: ssl.SSLContext) -> bool:
    """Have *context* offer the profile's groups alone; false where it offers OpenSSL's own."""
    return any(_set(context, groups) for groups in (_WITH_POST_QUANTUM, _GROUPS))


def _set(context: Any, groups: str) -> bool:
    if hasattr(context, "set_groups"):
        try:
            context.set_groups(groups)
        except ssl.SSLError:  # this OpenSSL does not know one of them
            return False
        return True
    openssl = _openssl()
    if openssl is None:
        return False
    pointer = ctypes.c_void_p.from_address(id(context) + object.__basicsize__)
    # What Python itself says of this context has to be what OpenSSL says of it.
    if openssl.SSL_CTX_get_options(pointer) != context.options & 0xFFFF_FFFF_FFFF_FFFF:
        return False
    return bool(openssl.SSL_CTX_ctrl(pointer, _SET_GROUPS_LIST, 0, groups.encode()) == 1)


@cache
def _openssl() -> ctypes.CDLL | None:
    """The OpenSSL that the ssl module uses, if pounce knows how to call it."""
    # A library by name might be another one than Python's own.
    path = getattr(sys.modules["_ssl"], "__file__", None)
    is_known = sys.implementation.name == "cpython" and _KNOWN_LAYOUT
    if not (path and is_known and ssl.OPENSSL_VERSION.startswith("OpenSSL ")):
        return None
    try:
        library = ctypes.CDLL(path)
        library.SSL_CTX_get_options.argtypes = [ctypes.c_void_p]
        library.SSL_CTX_get_options.restype = ctypes.c_uint64
        library.SSL_CTX_ctrl.argtypes = [
            ctypes.c_void_p,
            ctypes.c_int,
            ctypes.c_long,
            ctypes.c_char_p,
        ]
        library.SSL_CTX_ctrl.restype = ctypes.c_long
    except (OSError, AttributeError):  # linked statically, its names hidden
        return None
    return library
