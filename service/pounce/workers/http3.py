"""Whether HTTP/3 can be served: aioquic is not to be had everywhere."""

import importlib

from pounce.errors import ConfigError


def check_http3() -> None:
    """Import all that serves HTTP/3, so that forked workers share it; raises ConfigError."""
    try:
        importlib.import_module("pounce.workers.h3_worker")
    except ImportError as error:
        raise ConfigError(
            f"http3: it needs aioquic, which cannot be imported: {error}",
            hint="install python3-aioquic, or pounce[http3] in the application's environment; "
            "on free-threaded Python it cannot be installed",
        ) from None
