"""Applications of two frameworks, served by the program and used through a real HTTP client."""

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conformance.client import TIMEOUT
from tests.conformance.servers import LiveServer, serve_in_process, wait_for

if TYPE_CHECKING:
    import httpx
else:
    httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("python_multipart")

APPLICATIONS = "tests.conformance.applications"
HERE = Path(__file__).parent
BLOCK = bytes(range(256)) * 40  # 10,240 bytes
LARGE = BLOCK * 1000


@pytest.fixture(scope="module", params=["process", "thread"])
def starlette(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    mode = ("--worker-mode", request.param)
    with serve_in_process(f"{APPLICATIONS}:make_starlette()", *mode) as server:
        yield server


@pytest.fixture(scope="module")
def fastapi() -> Iterator[LiveServer]:
    with serve_in_process(f"{APPLICATIONS}:make_fastapi()") as server:
        yield server


@pytest.fixture
def client(starlette: LiveServer) -> Iterator[httpx.Client]:
    """A client of the Starlette application; what it does must leave the log clean."""
    starlette.log.clear()
    with httpx.Client(base_url=starlette.url, timeout=TIMEOUT) as client:
        yield client
    assert not starlette.complaints


@pytest.fixture
def careless(starlette: LiveServer) -> Iterator[httpx.Client]:
    """A client that may make the application fail."""
    with httpx.Client(base_url=starlette.url, timeout=TIMEOUT) as client:
        yield client


@pytest.fixture
def api(fastapi: LiveServer) -> Iterator[httpx.Client]:
    fastapi.log.clear()
    with httpx.Client(base_url=fastapi.url, timeout=TIMEOUT) as client:
        yield client
    assert not fastapi.complaints


def test_a_request_is_described(client: httpx.Client) -> None:
    url = "/describe/caf%C3%A9?a=1&a=2&b=%20"
    seen = client.request("DELETE", url, headers={"X-Odd": "value"}).json()
    assert seen["method"] == "DELETE"
    assert seen["url"] == f"{client.base_url}/describe/café?a=1&a=2&b=%20"
    assert seen["query"] == [["a", "1"], ["a", "2"], ["b", " "]]
    assert seen["item"] == "café"
    assert ["x-odd", "value"] in seen["headers"]


def test_requests_share_a_connection(client: httpx.Client) -> None:
    ports = {client.get("/describe/x").json()["client"][1] for _ in range(20)}
    assert len(ports) == 1


def test_lifespan_state_is_copied_for_each_request(client: httpx.Client) -> None:
    first, second = client.get("/state").json(), client.get("/state").json()
    assert first["greeting"] == second["greeting"] == "hello"
    assert first["mine"] == second["mine"] == 1, "one request's attribute reached another"
    assert second["shared"] == first["shared"] + 1, "the copy must be a shallow one"


def test_a_stream_arrives_in_order(client: httpx.Client) -> None:
    response = client.get("/stream?lines=2000", headers={"accept-encoding": "identity"})
    assert response.text.splitlines() == [f"line {number}" for number in range(2000)]
    assert response.headers["transfer-encoding"] == "chunked"


def test_middleware_compresses_and_stamps(client: httpx.Client) -> None:
    response = client.get("/stream?lines=2000", headers={"origin": "http://friend.example"})
    assert response.headers["content-encoding"] == "gzip"
    assert response.headers["x-stamp"] == "GET"
    assert response.headers["access-control-allow-origin"] == "http://friend.example"
    assert response.text.endswith("line 1999\n")


def test_preflight(client: httpx.Client) -> None:
    headers = {"origin": "http://friend.example", "access-control-request-method": "GET"}
    assert client.options("/state", headers=headers).status_code == 200


@pytest.mark.parametrize("sized", [True, False], ids=["sized", "chunked"])
def test_a_large_upload_arrives_whole(client: httpx.Client, *, sized: bool) -> None:
    content = LARGE if sized else (BLOCK for _ in range(1000))
    answer = client.post("/digest", content=content).json()
    assert answer == {"size": len(LARGE), "sha256": hashlib.sha256(LARGE).hexdigest()}


def test_a_form_with_a_file(client: httpx.Client) -> None:
    files = {"file": ("data.bin", BLOCK * 200)}
    assert client.post("/form", data={"name": "x"}, files=files).json() == {
        "name": "x",
        "file": ["data.bin", len(BLOCK) * 200],
    }


def test_a_large_response_arrives_whole(client: httpx.Client) -> None:
    response = client.get("/large", headers={"accept-encoding": "identity"})
    assert int(response.headers["content-length"]) == 10_000_000
    assert response.content == b"0123456789" * 1_000_000


def test_a_background_task_runs_after_the_response(client: httpx.Client) -> None:
    assert client.get("/background").status_code == 202
    wait_for(lambda: "background task ran" in client.get("/events").json())


def test_an_exception_is_a_500_with_a_traceback_in_the_log(
    careless: httpx.Client, starlette: LiveServer
) -> None:
    assert careless.get("/fail").status_code == 500
    wait_for(lambda: "LookupError: before the response" in "".join(starlette.log))
    assert careless.get("/state").status_code == 200


def test_cookies_and_a_redirect(client: httpx.Client) -> None:
    assert [client.get("/cookie").text for _ in range(2)] == ["never", "once"]
    assert set(client.cookies) == {"visited", "other"}
    response = client.get("/redirect", follow_redirects=True)
    assert response.json()["query"] == [["from", "redirect"]]


def test_a_response_without_content_keeps_the_connection(client: httpx.Client) -> None:
    for _ in range(3):
        response = client.get("/nothing")
        assert (response.status_code, response.content) == (204, b"")
        assert "content-length" not in response.headers


def test_static_files(client: httpx.Client) -> None:
    content = (HERE / "echo.py").read_bytes()
    client.headers["accept-encoding"] = "identity"
    whole = client.get("/static/echo.py")
    assert whole.content == content
    head = client.head("/static/echo.py")
    assert (head.content, head.headers["content-length"]) == (b"", str(len(content)))
    known = client.get("/static/echo.py", headers={"if-none-match": whole.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")
    part = client.get("/static/echo.py", headers={"range": "bytes=3-9"})
    assert (part.status_code, part.content) == (206, content[3:10])
    assert client.get("/static/missing").status_code == 404
    assert client.get("/static/%2e%2e/README.md").status_code == 404


def test_many_clients_at_once(starlette: LiveServer) -> None:
    barrier = threading.Barrier(16, timeout=TIMEOUT)

    def work(number: int) -> bool:
        with httpx.Client(base_url=starlette.url, timeout=TIMEOUT) as client:
            barrier.wait()
            for round_ in range(10):
                content = b"%d/%d " % (number, round_) * 1000
                answer = client.put("/digest", content=content).json()
                assert answer["sha256"] == hashlib.sha256(content).hexdigest()
        return True

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(16)))


def test_the_lifespan_ends_with_the_server(tmp_path: Path) -> None:
    farewell = tmp_path / "farewell"
    environment = {"POUNCE_TEST_FAREWELL": str(farewell)}
    with serve_in_process(f"{APPLICATIONS}:make_fastapi()", environment=environment) as server:
        assert httpx.get(f"{server.url}/greeting").json() == "hello"
        assert not farewell.exists()
    assert farewell.read_text() == "lifespan ended"


def test_validation(api: httpx.Client) -> None:
    created = api.post("/items", json={"name": "lamp", "price": 3})
    assert (created.status_code, created.json()) == (201, {"name": "lamp", "price": 3.0})
    assert api.post("/items", json={"name": "lamp"}).status_code == 422
    assert api.post("/items", content=b"{").status_code == 422
    wait_for(lambda: "created lamp" in api.get("/events").json())


def test_a_dependency_is_closed_after_its_request(api: httpx.Client) -> None:
    assert api.get("/items/7").json() == {"number": 7, "session": "session"}
    assert api.get("/items/404").status_code == 404
    wait_for(lambda: api.get("/events").json().count("session closed") == 2)


def test_an_uploaded_file(api: httpx.Client) -> None:
    answer = api.post("/upload", files={"file": ("large.bin", LARGE)}).json()
    assert answer == {"name": "large.bin", "sha256": hashlib.sha256(LARGE).hexdigest()}


def test_a_stream_from_a_thread(api: httpx.Client) -> None:
    assert api.get("/numbers").text == "".join(f"{number}\n" for number in range(100))


def test_the_documentation_is_served(api: httpx.Client) -> None:
    assert api.get("/docs").status_code == 200
    assert "/items" in api.get("/openapi.json").json()["paths"]


def test_clients_that_leave_are_noticed(api: httpx.Client) -> None:
    for _ in range(20):
        with api.stream("GET", "/endless/") as response:
            assert next(response.iter_raw())
    wait_for(lambda: api.get("/events").json().count("client left") == 20)


def test_an_exception_within_a_response_is_no_clean_end(fastapi: LiveServer) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{fastapi.url}/fail_late")
    wait_for(lambda: "LookupError: in the middle of the response" in "".join(fastapi.log))
    assert httpx.get(f"{fastapi.url}/greeting").status_code == 200
