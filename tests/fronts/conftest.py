"""One service that mirrors requests, and both proxies in front of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fronts.proxies import Front, Upstream, haproxy, nginx
from tests.service import Service, serving


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fronts")


@pytest.fixture(scope="session")
def service(directory: Path) -> Iterator[Service]:
    entry = f"""
        [[listen]]
        address = "unix:{directory}/plain"
        [[listen]]
        address = "unix:{directory}/proxied"
        proxy_protocol = true
    """
    with serving(directory, app="mirror:app", entry=entry) as service:
        yield service
        assert "ERROR" not in service.log


@pytest.fixture(scope="session")
def upstream(service: Service, directory: Path) -> Upstream:
    return Upstream(str(service.address), f"{directory}/plain", f"{directory}/proxied")


@pytest.fixture(scope="session")
def fronts(directory: Path, upstream: Upstream) -> Iterator[dict[str, Front]]:
    with (
        nginx(directory / "nginx", upstream) as one,
        haproxy(directory / "haproxy", upstream) as other,
    ):
        yield {"nginx": one, "haproxy": other}
