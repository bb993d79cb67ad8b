"""Make this machine able to run the tests behind proxies: `python -m tests.fronts.prepare`."""

import subprocess
import sys

from tests import tools
from tests.fronts.proxies import STREAM_MODULE

TOOLS = {"haproxy": "haproxy", "nginx": "nginx", "sslscan": "sslscan"}


def main() -> int:
    """Install what is missing; returns an exit status."""
    try:
        tools.install(TOOLS)
        # A module is no command, but where it is missing it is installed like one.
        if not STREAM_MODULE.exists():
            tools.install({STREAM_MODULE.name: "libnginx-mod-stream"})
    except (tools.UnpreparedError, subprocess.CalledProcessError) as error:
        print(f"not prepared for the tests behind proxies: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
