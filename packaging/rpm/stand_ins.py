"""What the stand-ins for Fedora's macros run (packaging/rpm/macros).

    stand_ins.py buildrequires [EXTRA,EXTRA]           of the project in the current directory
    stand_ins.py save-files BUILDROOT SITELIB MODULE   prints a list for %files -f
    stand_ins.py check-import DIRECTORY < LIST         imports the modules that are in the list

Each follows the section of its name in the README of pyproject-rpm-macros
(https://src.fedoraproject.org/rpms/pyproject-rpm-macros), as far as pounce.spec needs it.
"""

import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from email.parser import Parser
from importlib.metadata import version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, canonicalize_version

# pip makes and installs the wheel.
_OF_THE_MACROS = ("pip",)


def buildrequires(extras: str = "") -> Iterator[str]:
    """What building takes, by python3dist(): the build system, the dependencies, those of *extras*.

    What is not here in the version that is required ends the build: rpmbuild cannot tell, as
    Debian's packages are not in rpm's database.
    """
    data = tomllib.loads(Path("pyproject.toml").read_text())
    project = data["project"]
    texts = [*_OF_THE_MACROS, *data["build-system"]["requires"], *project["dependencies"]]
    for extra in filter(None, extras.split(",")):
        texts += project["optional-dependencies"][extra]
    for requirement in map(Requirement, texts):
        if requirement.marker is None or requirement.marker.evaluate():
            if version(requirement.name) not in requirement.specifier:
                sys.exit(f"{requirement} is required, but {version(requirement.name)} is installed")
            yield _in_rpm(requirement)


def _in_rpm(requirement: Requirement) -> str:
    name = f"python3dist({canonicalize_name(requirement.name)})"
    # As in what packages provide: 43 for 43.0.
    bounds = [
        f"{name} {each.operator} {canonicalize_version(each.version)}"
        for each in requirement.specifier
    ]
    return f"({' with '.join(bounds)})" if len(bounds) > 1 else (bounds or [name])[0]


def save_files(buildroot: str, sitelib: str, module: str) -> Iterator[str]:
    """The files of *module* and its metadata; the licenses that the metadata name, as %license."""
    root = Path(buildroot)
    [metadata] = (root / sitelib.lstrip("/")).glob(f"{module}-*.dist-info")
    # RECORD, and what pip notes about itself, are not what rpm has installed.
    for name in ("RECORD", "REQUESTED", "direct_url.json"):
        (metadata / name).unlink(missing_ok=True)
    (metadata / "INSTALLER").write_text("rpm\n")
    licenses = set(_licenses(metadata))
    if not licenses:
        sys.exit(f"{metadata} names no License-File")
    for path in [metadata.with_name(module), metadata]:
        for each in [path, *sorted(path.rglob("*"))]:
            kind = "%dir " if each.is_dir() else "%license " if each in licenses else ""
            yield f"{kind}/{each.relative_to(root)}"


def _licenses(metadata: Path) -> Iterator[Path]:
    names = Parser().parsestr((metadata / "METADATA").read_text()).get_all("License-File", [])
    for name in names:
        # PEP 639 has them in a folder; older build systems put them beside METADATA.
        yield from (
            each for each in (metadata / "licenses" / name, metadata / name) if each.exists()
        )


def check_import(directory: str) -> Iterator[str]:
    """Import all public modules that the list on standard input has below *directory*."""
    for line in sys.stdin:
        found = re.fullmatch(r"/.*/site-packages/(.*?)(?:/__init__)?\.py\n", line)
        name = found[1].replace("/", ".") if found else "_"
        if not re.search(r"(^|\.)_", name):
            module = importlib.import_module(name)
            if not str(module.__file__).startswith(directory):
                sys.exit(f"{name} was imported from {module.__file__}")
            yield name


COMMANDS = {"buildrequires": buildrequires, "save-files": save_files, "check-import": check_import}

if __name__ == "__main__":
    print(*COMMANDS[sys.argv[1]](*sys.argv[2:]), sep="\n")  # noqa: T201 - the macro's output
