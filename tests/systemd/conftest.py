"""One machine a session, one instance's name a test."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd import rootfs
from tests.systemd.instance import Instance
from tests.systemd.machine import Machine, build_wheel
from tests.systemd.packages import build

_names = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # Booting, slow starts and watchdogs take their time, and none of them hangs for ever.
        is_here = item.path.is_relative_to(Path(__file__).parent)
        if is_here and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(180))
        since = item.get_closest_marker("systemd_since")
        if since and isinstance(item, pytest.Function):
            version, what = since.args
            if rootfs.SYSTEMD[str(item.callspec.params["suite"])] < version:
                reason = f"systemd has this from {version} on: {what}"
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """POUNCE_TEST_SUITES="trixie forky" runs everything on several systems."""
    if "suite" in metafunc.fixturenames:
        suites = os.environ.get("POUNCE_TEST_SUITES", "trixie").split()
        metafunc.parametrize("suite", suites, scope="session")


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def machine(suite: str, wheel: Path) -> Iterator[Machine]:
    with Machine(rootfs.cached(suite)) as machine:
        machine.install(wheel)
        yield machine


@pytest.fixture(scope="session")
def built(suite: str, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The Debian packages, built from the working tree, and their sources."""
    return build("deb", suite, tmp_path_factory.mktemp("packages"))


@pytest.fixture(scope="session")
def packages(built: list[Path]) -> list[Path]:
    """The Debian packages."""
    return [path for path in built if path.suffix == ".deb"]


@pytest.fixture
def instance(machine: Machine) -> Iterator[Instance]:
    """An instance under a name that no other test has, cleaned away afterwards."""
    instance = Instance(machine, f"test{next(_names)}")
    yield instance
    instance.remove()
