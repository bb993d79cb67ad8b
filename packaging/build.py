"""Build the native packages in a clean Debian root file system: `make deb`, `make rpm`.

    python packaging/build.py deb|deb/again|rpm [SUITE [DIRECTORY]]

The result goes to DIRECTORY, dist/ by default. Building has no network: all that a build may
use is what debian/control names. The root file system is made once and kept in the tests'
cache.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from tests.systemd import rootfs  # noqa: E402 - found from the project's directory

TOOLS = (
    "build-essential",
    "faketime",
    "lintian",
    "python3-pip",
    "python3-systemd",
    "rpm",
    "rpmlint",
)


def main(kind: str, suite: str = "trixie", directory: str = "dist") -> None:
    """Build the packages of *kind* in *suite*, put them into *directory*, print their paths."""
    result = Path(directory)
    result.mkdir(parents=True, exist_ok=True)
    root = rootfs.cached(suite, (*build_dependencies(), *TOOLS), wheels=())
    with tempfile.TemporaryDirectory(prefix="pounce-build-") as scratch:
        work = Path(scratch)
        work.chmod(0o755)  # lintian works as another user
        export(work)
        (work / "result").mkdir()
        run_inside(root, work, f"pounce/packaging/{kind}/build")
        for package in sorted((work / "result").iterdir()):
            print(shutil.copy(package, result))  # noqa: T201 - the answer for a person


def build_dependencies() -> list[str]:
    """The names in the field Build-Depends of debian/control."""
    control = (PROJECT / "debian/control").read_text()
    [field] = re.findall(r"^Build-Depends:\n((?: .*\n)+)", control, re.MULTILINE)
    packages = [line.split()[0].strip(",") for line in field.splitlines()]
    # debhelper-compat is virtual.
    return ["debhelper" if name == "debhelper-compat" else name for name in packages]


def export(work: Path) -> None:
    """Copy the project's files to the directory pounce of *work*."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=PROJECT, check=True, stdout=subprocess.PIPE).stdout
    names = [name for name in listed.decode().split("\0") if name and (PROJECT / name).exists()]
    for name in names:
        target = work / "pounce" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, target)


def run_inside(root: Path, work: Path, script: str) -> None:
    """Run *script*, which lies in *work*, on a throw-away copy of *root*, without a network."""
    nspawn = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--console=pipe"]
    machine = ["--private-network", "--volatile=overlay", f"--directory={root}"]
    place = [f"--bind={work}:/work", "--chdir=/work"]
    # DEB_BUILD_OPTIONS=nocheck, for one, leaves the tests out.
    choices = f"--setenv=DEB_BUILD_OPTIONS={os.environ.get('DEB_BUILD_OPTIONS', '')}"
    subprocess.run(
        [*nspawn, *machine, *place, "--setenv=LC_ALL=C.UTF-8", choices, "sh", "-eux", script],
        stdin=subprocess.DEVNULL,
        check=True,
    )


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (rootfs.UnpreparedError, subprocess.CalledProcessError) as error:
        sys.exit(f"packaging/build.py: {error}")
