"""pounce: Python ASGI applications as native Linux services."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pounce.version import __version__

if TYPE_CHECKING:
    from pounce.application.sync_app import RawRequest, RawResponse, SyncApp
    from pounce.assembly.embedding import Site, run, serving
    from pounce.assembly.server import Server
    from pounce.assembly.sockets import create_listeners
    from pounce.config.service import Deploy, Listen, ServerConfig
    from pounce.errors import PounceError
    from pounce.net.address import Address
    from pounce.supervisor import Supervisor, TCPWorker

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

_HOMES = {
    "Address": "net.address",
    "Deploy": "config.service",
    "Listen": "config.service",
    "PounceError": "errors",
    "RawRequest": "application.sync_app",
    "RawResponse": "application.sync_app",
    "Server": "assembly.server",
    "ServerConfig": "config.service",
    "Site": "assembly.embedding",
    "Supervisor": "supervisor",
    "SyncApp": "application.sync_app",
    "TCPWorker": "supervisor",
    "create_listeners": "assembly.sockets",
    "run": "assembly.embedding",
    "serving": "assembly.embedding",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: a command that needs little of pounce does not wait for all."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"pounce.{_HOMES[name]}"), name)
