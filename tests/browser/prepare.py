"""Make this machine able to run the tests in a real browser: `python -m tests.browser.prepare`."""

import subprocess
import sys

from tests import tools


def main() -> int:
    """Install Chromium where it is missing; returns an exit status."""
    try:
        tools.install({"chromium": "chromium"})
    except (tools.UnpreparedError, subprocess.CalledProcessError) as error:
        print(f"not prepared for the tests in a browser: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
