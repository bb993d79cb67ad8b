"""Make this machine able to run the tests on a real systemd: `python -m tests.systemd.prepare`.

Installs what is missing of the host's tools and makes the root file system; does nothing
where both are there.
"""

import os
import shutil
import subprocess
import sys

from tests.systemd import rootfs


def main(suites: list[str]) -> int:
    """Prepare for *suites*; returns an exit status."""
    try:
        _install_tools()
        for suite in suites or ["trixie"]:
            print(rootfs.cached(suite))  # noqa: T201 - the answer for a person
    except (rootfs.UnpreparedError, subprocess.CalledProcessError) as error:
        print(f"not prepared for the tests on a real systemd: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _install_tools() -> None:
    missing = [package for tool, package in rootfs.HOST_TOOLS.items() if not shutil.which(tool)]
    if not missing:
        return
    if os.geteuid() != 0:
        raise rootfs.UnpreparedError(f"as root: apt-get install {' '.join(missing)}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    for command in (["apt-get", "update"], install):
        subprocess.run(command, check=True, env=environment, stdout=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
