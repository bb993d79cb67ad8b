"""One service that mirrors requests, and both proxies in front of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fronts.proxies import Front, haproxy, nginx
from tests.fronts.upstream import Upstream, running


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fronts")


@pytest.fixture(scope="session")
def upstream(directory: Path) -> Iterator[Upstream]:
    with running(directory, app="mirror:app") as upstream:
        yield upstream


@pytest.fixture(scope="session")
def fronts(directory: Path, upstream: Upstream) -> Iterator[dict[str, Front]]:
    with (
        nginx(directory / "nginx", upstream) as one,
        haproxy(directory / "haproxy", upstream) as other,
    ):
        yield {"nginx": one, "haproxy": other}
