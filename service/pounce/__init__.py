"""pounce: Python ASGI applications as native Linux services."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pounce.config import Deploy, Listen, ServerConfig
    from pounce.embedding import Site, run, serving
    from pounce.errors import PounceError
    from pounce.listening import create_listeners
    from pounce.net.address import Address
    from pounce.server import Server
    from pounce.supervisor import Supervisor, TCPWorker
    from pounce.sync_app import RawRequest, RawResponse, SyncApp

__all__ = [
    "Address",
    "Deploy",
    "Listen",
    "PounceError",
    "RawRequest",
    "RawResponse",
    "Server",
    "ServerConfig",
    "Site",
    "Supervisor",
    "SyncApp",
    "TCPWorker",
    "__version__",
    "create_listeners",
    "run",
    "serving",
]

__version__ = "0.1.0"

_HOMES = {
    "Address": "net.address",
    "Deploy": "config",
    "Listen": "config",
    "PounceError": "errors",
    "RawRequest": "sync_app",
    "RawResponse": "sync_app",
    "Server": "server",
    "ServerConfig": "config",
    "Site": "embedding",
    "Supervisor": "supervisor",
    "SyncApp": "sync_app",
    "TCPWorker": "supervisor",
    "create_listeners": "listening",
    "run": "embedding",
    "serving": "embedding",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: a command that needs little of pounce does not wait for all."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"pounce.{_HOMES[name]}"), name)
