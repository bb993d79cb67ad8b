"""Flask and Django, their own clients' way: through httpx, on a service of their own."""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.service import APPS, Service, serving

httpx = pytest.importorskip("httpx")
pytest.importorskip("django")
pytest.importorskip("flask")


def client(service: Service) -> Any:
    address = service.address
    return httpx.Client(base_url=f"http://{address.host}:{address.port}")


# Flask


@pytest.fixture(scope="module")
def flask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    directory = tmp_path_factory.mktemp("flask")
    with serving(directory, "--threads", "4", app="flask_app:app") as service, client(service) as c:
        yield c
        assert service.log.count("Traceback") == 1


def test_flask_answers_json(flask: Any) -> None:
    answer = flask.get("/json", params={"name": "Jürgen & Co"}).json()
    assert answer["name"] == "Jürgen & Co"
    assert answer["url"].startswith(f"http://{answer['host']}/json?name=")


def test_flask_keeps_a_session(flask: Any) -> None:
    assert flask.get("/whoami").status_code == 401
    answer = flask.post("/login", data={"user": "ada"}, follow_redirects=True)
    assert (answer.status_code, answer.text) == (200, "ada")


def test_flask_takes_uploads(flask: Any) -> None:
    content = os.urandom(700_000)
    answer = flask.post("/upload", files={"file": ("a.bin", content)}).json()
    digest = hashlib.sha256(content).hexdigest()
    assert answer == {"name": "a.bin", "size": len(content), "digest": digest}


def test_flask_reads_chunked_content(flask: Any) -> None:
    assert flask.post("/raw", content=iter([b"in ", b"pieces"])).content == b"in pieces"


def test_flask_streams(flask: Any) -> None:
    answer = flask.get("/stream", params={"what": "piece"})
    assert answer.text == "piece 0\npiece 1\npiece 2\n"
    assert answer.headers["transfer-encoding"] == "chunked"


def test_flask_sends_files_and_parts_of_them(flask: Any) -> None:
    content = (APPS / "flask_app.py").read_bytes()
    whole = flask.get("/file")
    assert whole.content == content
    part = flask.get("/file", headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, content[10:20])
    again = flask.get("/file", headers={"if-none-match": whole.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    head = flask.head("/file")
    assert (head.headers["content-length"], head.content) == (str(len(content)), b"")


def test_flask_fails_politely(flask: Any) -> None:
    answer = flask.get("/fail")
    assert answer.status_code == 500
    assert "Internal Server Error" in answer.text


# Django


@pytest.fixture(scope="module")
def django(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    directory = tmp_path_factory.mktemp("django")
    mine = {"DATABASE": str(directory / "db.sqlite3"), "DJANGO_SUPERUSER_PASSWORD": "difficult"}
    create = ["createsuperuser", "--noinput", "--username", "ada", "--email", "ada@a.example"]
    for command in (["migrate", "--verbosity", "0"], create):
        subprocess.run(
            [sys.executable, APPS / "django_app.py", *command],
            env={**os.environ, **mine},
            check=True,
            stdout=subprocess.DEVNULL,
        )
    database = f"DATABASE={mine['DATABASE']}"
    flags = ("--env", database, "--threads", "4", "--workers", "2")
    with serving(directory, *flags, app="django_app:app") as service, client(service) as c:
        yield c
        assert "Traceback" not in service.log


def token(page: Any) -> str:
    found = re.search('name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
    assert found is not None
    return found[1]


def test_the_admin_of_django_is_used(django: Any) -> None:
    form = django.get("/admin/", follow_redirects=True)
    assert form.url.path == "/admin/login/"
    wrong = {"username": "ada", "password": "wrong", "csrfmiddlewaretoken": token(form)}
    refused = django.post("/admin/login/?next=/admin/", data=wrong)
    assert "Please enter the correct username" in refused.text
    right = {**wrong, "password": "difficult", "csrfmiddlewaretoken": token(refused)}
    home = django.post("/admin/login/?next=/admin/", data=right, follow_redirects=True)
    assert home.url.path == "/admin/"
    assert "Site administration" in home.text
    page = django.get("/admin/auth/group/add/")
    added = django.post(
        "/admin/auth/group/add/",
        data={"name": "Zoë's", "csrfmiddlewaretoken": token(page)},
        follow_redirects=True,
    )
    assert "was added successfully" in added.text
    assert "Zoë&#x27;s" in django.get("/admin/auth/group/").text


def test_forgery_is_refused(django: Any) -> None:
    answer = django.post("/admin/login/", data={"username": "ada"}, headers={"cookie": ""})
    assert answer.status_code == 403


def test_django_streams_and_sends_files(django: Any) -> None:
    assert django.get("/stream").text == "0\n1\n2\n"
    assert django.get("/file").content == (APPS / "django_app.py").read_bytes()


def test_django_reads_chunked_content(django: Any) -> None:
    assert django.post("/echo", content=iter([b"in ", b"pieces"])).content == b"in pieces"
