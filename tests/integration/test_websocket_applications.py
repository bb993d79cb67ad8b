"""WebSockets of a FastAPI application, which are Starlette's, by an independent client."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.service import Service, serving, wait_until

pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    directory: Path = tmp_path_factory.mktemp("chat")
    with serving(directory, app="chat:app") as service:
        yield service
        assert "ERROR" not in service.log


def open_at(service: Service, path: str, *subprotocols: str) -> ClientConnection:
    offered = [Subprotocol(name) for name in subprotocols]
    return connect(f"ws://{service.address}{path}", subprotocols=offered or None, proxy=None)


def left(service: Service, name: str) -> list[object] | None:
    with service.connect() as wire:
        gone: list[list[object]] = json.loads(wire.get("/left").body)
    return next((each for each in gone if each[0] == name), None)


def test_a_conversation(service: Service) -> None:
    with open_at(service, "/rooms/blue?name=ann", "v2", "v1") as ws:
        assert ws.subprotocol == "v2"
        for said in ("Grüße", {"deep": ["x" * 100_000]}):
            ws.send(json.dumps(said))
            assert json.loads(ws.recv()) == {"room": "blue", "name": "ann", "said": said}
        ws.close(4000, "enough")
    assert wait_until(lambda: left(service, "ann"), "ann") == ["ann", 4000, "enough"]


@pytest.mark.parametrize(("path", "status"), [("/rooms/blue", 403), ("/nothing", 403)])
def test_a_refusal_before_the_accept(service: Service, path: str, status: int) -> None:
    with pytest.raises(InvalidStatus) as caught:
        open_at(service, path)
    assert caught.value.response.status_code == status


def test_a_denial_with_a_response(service: Service) -> None:
    with pytest.raises(InvalidStatus) as caught:
        open_at(service, "/private")
    assert caught.value.response.status_code == 401
    assert json.loads(caught.value.response.body or b"") == {"error": "no key"}


def test_an_exception_with_a_code(service: Service) -> None:
    with open_at(service, "/kick") as ws, pytest.raises(ConnectionClosed) as caught:
        ws.recv()
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4003, "kicked")


def test_a_sender_learns_that_its_client_is_gone(service: Service) -> None:
    with open_at(service, "/count") as ws:
        assert ws.recv() == bytes(10_000)
        ws.socket.close()
    assert wait_until(lambda: left(service, "count"), "count") == ["count", 1006, ""]
