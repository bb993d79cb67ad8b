"""Make this machine able to run the tests on a real systemd: `python -m tests.systemd.prepare`.

Installs what is missing of the host's tools and makes the root file system; does nothing
where both are there.
"""

import subprocess
import sys

from tests import tools
from tests.systemd import rootfs


def main(suites: list[str]) -> int:
    """Prepare for *suites*; returns an exit status."""
    try:
        tools.install(rootfs.HOST_TOOLS)
        for suite in suites or ["trixie"]:
            print(rootfs.cached(suite))  # noqa: T201 - the answer for a person
    except (tools.UnpreparedError, rootfs.UnpreparedError, subprocess.CalledProcessError) as error:
        print(f"not prepared for the tests on a real systemd: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
