"""The README's recipes, carried out as they are written there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.systemd.machine import Machine
from tests.systemd.packages import boot, install
from tests.systemd.readme import blocks

# Building in a root file system that is not there yet takes minutes.
pytestmark = pytest.mark.timeout(600)

# What the recipes take from elsewhere; pip finds it there already, as there is no network.
APPLICATIONS_AND_FRONTS = ("haproxy", "nginx", "python3-django", "python3-flask")

# Deployed into the recipe's project: tells which client and scheme it sees.
VIEW = """
from django.http import HttpResponse
from django.urls import path

def who(request):
    return HttpResponse(f"{request.META['REMOTE_ADDR']} {request.scheme} {request.get_host()}")

urlpatterns = [path("", who)]
"""
FRONTS = {"Behind nginx": "nginx", "Behind HAProxy, with the PROXY protocol": "haproxy"}
CLIENT = "127.0.0.2"
HOST = "shop.example.org"


@pytest.fixture(scope="module")
def machine(suite: str, packages: list[Path]) -> Iterator[Machine]:
    with boot(suite, APPLICATIONS_AND_FRONTS) as machine:
        install(machine, packages)
        yield machine


def carry_out(machine: Machine, heading: str, *environment: str) -> str:
    """Do what a recipe says, in its order; what its commands print."""
    printed = ""
    for language, text in blocks(heading):
        if language == "sh":
            command = ("env", "PIP_NO_INDEX=1", *environment, "sh", "-euc", text)
            printed += machine.run(*command, timeout=120).stdout
        else:
            write(machine, text)
    return printed


def write(machine: Machine, text: str) -> None:
    """Write a block that says in its first line which file it is, or which one it ends."""
    comment, _, content = text.partition("\n")
    path = comment.split()[-1]
    assert path.startswith("/"), comment
    there = machine.path(path)
    begins = there.read_text() if comment.startswith("# at the end of ") else ""
    machine.write(path, begins + content)


def ask(machine: Machine) -> str:
    """What the application sees of a request to the front, from another address."""
    return machine.curl(
        "http://localhost/", "--ipv4", "--interface", CLIENT, "--header", f"Host: {HOST}"
    ).stdout


def test_django_behind_nginx_and_haproxy(machine: Machine) -> None:
    assert "The install worked successfully" in carry_out(machine, "Django")
    said = [entry["MESSAGE"] for entry in machine.journal("pounce@shop.service")]
    assert any("Applying auth.0001_initial" in message for message in said), said
    assert "Django administration" in machine.curl("http://127.0.0.1:8000/admin/login/").stdout
    machine.write("/srv/shop/shop/urls.py", VIEW)
    machine.systemctl("reload", "pounce@shop")
    for front in FRONTS:
        carry_out(machine, front)
        # They take up a new configuration after their reload has returned.
        machine.wait_until(lambda: ask(machine) == f"{CLIENT} http {HOST}", 20, front)
        machine.systemctl("stop", FRONTS[front])


def test_django_straight_on_443(machine: Machine) -> None:
    """With the Django of the recipes above."""
    authority = Authority()
    issued = authority.issue(HOST)
    for name, pem in {"fullchain": issued.pem, "privkey": issued.key_pem}.items():
        machine.write(f"/etc/letsencrypt/live/{HOST}/{name}.pem", pem.decode())
    machine.write("/root/authority.pem", authority.pem.decode())
    trust = "CURL_CA_BUNDLE=/root/authority.pem"
    assert carry_out(machine, "Straight on 443", trust) == f"127.0.0.1 https {HOST}"


def test_fastapi(machine: Machine) -> None:
    assert carry_out(machine, "FastAPI").endswith('{"hello":"world"}')


def test_flask(machine: Machine) -> None:
    assert carry_out(machine, "Flask").endswith('{"hello":"flask"}\n')
