"""Real applications, served to real clients."""

from tests.modes import both_modes
from tests.systemd.instance import Instance
from tests.systemd.machine import Machine
from tests.systemd.rootfs import VIRTUALENV


@both_modes
def test_datasette(machine: Machine, instance: Instance, mode: str) -> None:
    instance.configure(
        "datasette_app:make_app()", virtualenv=VIRTUALENV, worker_mode=mode, workers=2
    )
    machine.systemctl("start", instance.socket)
    page = instance.curl("/", "--include").stdout
    assert page.startswith("HTTP/1.1 200 OK")
    with instance.client() as browser:
        table = browser.get("/planets/planet").raise_for_status()
        assert "Mercury" in table.text
        style = table.text.split('<link rel="stylesheet" href="')[1].split('"')[0]
        assert browser.get(style).headers["content-type"] == "text/css"
        query = {"sql": "select count(*) as n from planet"}
        assert browser.get("/planets.json", params=query).json()["rows"] == [[4]]
        assert browser.get("/planets/no-such-table").status_code == 404
        csv = browser.get("/planets/planet.csv", params={"_stream": 1})
        assert csv.text.splitlines()[0] == "name,distance"


@both_modes
def test_fastapi_with_a_database(instance: Instance, mode: str) -> None:
    instance.configure(worker_mode=mode, workers=2)
    instance.start()
    with instance.client() as browser:
        for name in ("nail", "hammer"):
            assert browser.post("/items", json={"name": name, "stock": 3}).status_code == 201
        assert browser.post("/items", json={"name": "nail", "stock": 1}).status_code == 409
        assert browser.post("/items", json={"name": "saw"}).status_code == 422
        assert [item["name"] for item in browser.get("/items").json()] == ["hammer", "nail"]
        assert "Swagger" in browser.get("/docs").text
        assert browser.head("/docs").content == b""


def test_data_survives_a_restart(machine: Machine, instance: Instance) -> None:
    instance.configure()
    instance.start()
    with instance.client() as browser:
        browser.post("/items", json={"name": "nail", "stock": 3})
        machine.systemctl("restart", instance.service)
        assert browser.get("/items").json() == [{"name": "nail", "stock": 3}]
