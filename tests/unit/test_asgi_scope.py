"""The scope the application is given."""

from typing import Any

import pytest

from pounce.asgi.scope import build_scope
from pounce.http1.rules import to_origin_form


def scope_of(target: bytes, **changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "method": "GET",
        "headers": [],
        "http_version": "1.1",
        "scheme": "http",
        "client": ("192.0.2.1", 5),
        "server": ("192.0.2.2", 80),
        "root_path": "",
        "state": {},
        "extensions": {},
    }
    return build_scope(target=target, **{**arguments, **changes})


@pytest.mark.parametrize(
    ("target", "path", "raw_path", "query"),
    [
        (b"/", "/", b"/", b""),
        (b"/a%20b?c%20d?e", "/a b", b"/a%20b", b"c%20d?e"),
        (b"/%C3%A9%2f", "/é/", b"/%C3%A9%2f", b""),
        (b"/%ff%zz%", "/\ufffd%zz%", b"/%ff%zz%", b""),
        (b"//x/../y", "//x/../y", b"//x/../y", b""),
        (b"*", "*", b"*", b""),
    ],
)
def test_paths(target: bytes, path: str, raw_path: bytes, query: bytes) -> None:
    scope = scope_of(target)
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == (path, raw_path, query)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/a%20b", "/shop/a b"),
        (b"/shop/a%20b", "/shop/a b"),
        (b"/sh%6fp/a", "/shop/a"),
        (b"/shop", "/shop"),
        (b"/", "/shop/"),
        (b"/shopping", "/shop/shopping"),
        (b"*", "*"),
    ],
)
def test_the_path_begins_with_root_path_whether_the_proxy_left_it_there_or_not(
    target: bytes, path: str
) -> None:
    scope = scope_of(target, root_path="/shop")
    assert (scope["root_path"], scope["path"], scope["raw_path"]) == ("/shop", path, target)


def test_everything_is_there_and_nobodys_but_the_requests() -> None:
    state = {"pool": object()}
    scope = scope_of(b"/", state=state)
    assert scope["type"] == "http"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.3"}
    scope["asgi"]["version"] = scope["state"]["mine"] = "changed"
    assert scope_of(b"/")["asgi"]["version"] == "3.0"
    assert list(state) == ["pool"]
    assert scope["state"]["pool"] is state["pool"]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"http://b:8080/x?y", b"/x?y"),
        (b"HTTPS://b:8080?y", b"/?y"),
        (b"http://b:8080", b"/"),
    ],
)
def test_the_authority_of_an_absolute_target_is_the_host(target: bytes, expected: bytes) -> None:
    headers = [(b"host", b"a"), (b"x", b"y")]
    assert to_origin_form(target, headers) == (expected, [(b"host", b"b:8080"), (b"x", b"y")])
