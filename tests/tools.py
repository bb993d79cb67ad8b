"""Tools of this machine that tests need, installed from its Debian packages."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping


class UnpreparedError(Exception):
    """This machine lacks what tests need; the message says what."""


def install(tools: Mapping[str, str]) -> None:
    """Install what is missing of *tools*, commands with the packages that have them."""
    missing = [package for tool, package in tools.items() if not shutil.which(tool)]
    if not missing:
        return
    if os.geteuid() != 0:
        raise UnpreparedError(f"as root: apt-get install {' '.join(missing)}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    for each in (["apt-get", "update"], command):
        subprocess.run(each, check=True, env=environment, stdout=sys.stderr)
