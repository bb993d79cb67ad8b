"""Make this machine able to run the attacks: `python -m tests.attack.prepare`."""

import subprocess
import sys

from tests import tools


def main() -> int:
    """Install slowhttptest where it is missing; returns an exit status."""
    try:
        tools.install({"slowhttptest": "slowhttptest"})
    except (tools.UnpreparedError, subprocess.CalledProcessError) as error:
        print(f"not prepared for the attacks: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
