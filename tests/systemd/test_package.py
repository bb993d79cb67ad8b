"""The Debian packages on a plain Debian: install, serve, upgrade, remove, purge."""

import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pounce.net.address import Address
from tests.certificates import Authority
from tests.load import Background, Plan
from tests.systemd.instance import Instance
from tests.systemd.machine import APPLICATIONS, REPOSITORY, Machine
from tests.systemd.packages import apt, boot, install, newer, preseed

# Building in a root file system that is not there yet takes minutes.
pytestmark = pytest.mark.timeout(600)

CONNECTION_REFUSED = 7  # curl's exit status

UNITS = ("pounce.service", "pounce@x.service", "pounce@x.socket")

# What any installation changes, and any package's does.
UNRELATED = ("/var/lib/dpkg/", "/var/log/", "/var/cache/", "/var/lib/apt/", "/var/lib/systemd/")


@pytest.fixture
def plain(suite: str) -> Iterator[Machine]:
    """A machine without pounce."""
    with boot(suite) as machine:
        yield machine


@pytest.fixture(scope="module")
def packaged(suite: str, packages: list[Path]) -> Iterator[Machine]:
    """A machine with the packages."""
    with boot(suite) as machine:
        install(machine, packages)
        yield machine


@pytest.fixture
def instance(packaged: Machine) -> Iterator[Instance]:
    instance = Instance(packaged, "shop")
    yield instance
    instance.remove()


@pytest.fixture
def warned(packaged: Machine) -> Iterator[Instance]:
    """An instance whose journal has warnings, which others look for in vain."""
    instance = Instance(packaged, "warned")
    yield instance
    instance.remove()


def files(machine: Machine) -> set[str]:
    """Every file of the machine but those in /run, /tmp and the like, and those UNRELATED."""
    found = machine.run("find", "/", "-xdev").stdout.splitlines()
    return {path for path in found if not path.startswith(UNRELATED)}


def live(machine: Machine) -> None:
    """Do with the installed packages what an administrator does with them."""
    script = "/root/service"
    shutil.copy(REPOSITORY / "debian/tests/service", machine.path(script))
    machine.run(script)


def test_a_service_s_life(packaged: Machine) -> None:
    live(packaged)


def test_installed_it_is_ready_for_services(packaged: Machine) -> None:
    assert packaged.run("systemctl", "is-enabled", "pounce.service").stdout == "enabled\n"
    assert packaged.show("pounce.service", "ActiveState") == "active"
    units = [f"pounce{kind}.8" for kind in ("@", "@.service", "@.socket", ".service", "-generator")]
    for page in ("man1/pounce.1", "man5/pounce.toml.5", *(f"man8/{page}" for page in units)):
        assert packaged.path(f"/usr/share/man/{page}.gz").exists()
    for package in ("pounce", "python3-pounce"):
        assert packaged.path(f"/usr/share/doc/{package}/README.md.gz").exists()
    verified = packaged.run("systemd-analyze", "verify", "--man=no", *UNITS)
    assert verified.stderr == ""


def test_an_address_is_written_once(packaged: Machine, instance: Instance) -> None:
    addresses = ("127.0.0.1:8100", "[::1]:8100", "unix:/run/shop/front.sock")
    instance.configure("demo:app", listen=[{"address": address} for address in addresses])
    packaged.systemctl("enable", "--now", instance.socket)
    assert packaged.show(instance.socket, "Listen").splitlines() == [
        f"{address.removeprefix('unix:')} (Stream)" for address in addresses
    ]
    assert packaged.show(instance.service, "ActiveState") == "inactive"
    for target in ("http://127.0.0.1:8100/", "http://[::1]:8100/", "unix:/run/shop/front.sock:/"):
        assert packaged.curl(target, "--fail").returncode == 0
    # It took the sockets for those of its configuration.
    assert not [entry for entry in instance.journal() if int(entry["PRIORITY"]) <= 4]


def secure(machine: Machine, host: str) -> dict[str, str]:
    """The options of a listener with a certificate for *host*, and /etc/pounce/shop.ca for it."""
    authority = Authority()
    issued = authority.issue(host)
    for name, pem in {"key": issued.key_pem, "pem": issued.pem, "ca": authority.pem}.items():
        machine.write(f"/etc/pounce/shop.{name}", pem.decode())
    return {"certificate": "shop.pem", "key": "shop.key"}


MOVE = r"systemctl daemon-reload && [^;]*"


def move_that_check_names(instance: Instance) -> str:
    """The commands after which the instance's addresses are those of its file, as said by check."""
    checked = instance.machine.run("pounce", "check", instance.name)
    found = re.search(f"at its old addresses; to move to the new ones: ({MOVE})\n", checked.stderr)
    return found[1] if found else ""


def test_an_address_is_moved_by_the_commands_that_the_service_names(
    packaged: Machine, warned: Instance
) -> None:
    entry = {"address": ":8443", **secure(packaged, "shop.example.org")}
    warned.configure("demo:app", listen=[entry, {"address": f"unix:{warned.path}"}])
    packaged.systemctl("daemon-reload")
    warned.start()
    assert move_that_check_names(warned) == ""
    # What was there with a certificate must not be served without one, whatever is done.
    warned.configure("demo:app", listen=[{"address": "127.0.0.1:8101"}])
    packaged.systemctl("reload", warned.service)
    checked = move_that_check_names(warned)
    packaged.systemctl("daemon-reload")
    assert move_that_check_names(warned) == checked
    assert packaged.systemctl("restart", warned.service, check=False).returncode == 1
    assert warned.show("ExecMainStatus") == "71"
    told = [entry["MESSAGE"] for entry in warned.journal() if int(entry["PRIORITY"]) <= 4]
    named = {command for text in told for command in re.findall(MOVE, text)}
    commands = max((command.strip() for command in named), key=len)
    assert commands == checked
    packaged.run("sh", "-ec", commands)
    assert move_that_check_names(warned) == ""
    assert packaged.curl("http://127.0.0.1:8101/", "--fail").returncode == 0
    assert not packaged.path(warned.path).exists()
    assert packaged.curl("http://127.0.0.1:8443/", check=False).returncode == CONNECTION_REFUSED
    assert packaged.show(warned.socket, "Listen") == "127.0.0.1:8101 (Stream)"


def test_what_had_a_certificate_is_not_served_in_clear(packaged: Machine, warned: Instance) -> None:
    """Without any entry, and with the sockets as they were, then as a daemon-reload leaves them."""
    entry = {"address": ":8443", **secure(packaged, "shop.example.org")}
    warned.configure("demo:app", listen=[entry])
    packaged.systemctl("daemon-reload")
    warned.start()
    warned.configure("demo:app")
    move = f"systemctl daemon-reload && systemctl restart {warned.socket} {warned.service}"
    for fault in ("[::]:8443: systemd opened this", f"{warned.socket} has not opened unix:"):
        assert packaged.systemctl("restart", warned.service, check=False).returncode == 1
        assert warned.show("ExecMainStatus") == "71"
        refusals = [entry["MESSAGE"] for entry in warned.journal("PRIORITY=2")]
        assert refusals[-1].startswith(fault)
        assert move in refusals[-1]
        packaged.systemctl("daemon-reload")
    packaged.run("sh", "-ec", move)
    assert warned.curl("/", "--fail").returncode == 0
    assert packaged.curl("http://127.0.0.1:8443/", check=False).returncode == CONNECTION_REFUSED


def test_an_address_that_only_pounce_can_open_is_the_only_one(
    packaged: Machine, warned: Instance
) -> None:
    warned.configure("demo:app", listen=[{"address": "localhost:8102"}])
    packaged.systemctl("daemon-reload")
    warned.start()
    assert packaged.curl("http://localhost:8102/", "--fail").returncode == 0
    assert not packaged.path(warned.path).exists()
    told = [entry["MESSAGE"] for entry in warned.journal() if ":8102: pounce" in entry["MESSAGE"]]
    assert told
    assert all("a socket unit needs an IP address, not a name" in each for each in told)


def test_http3_has_a_udp_socket_for_each_worker(packaged: Machine, instance: Instance) -> None:
    host = "shop.example.org"
    entry = {"address": "127.0.0.1:8443", **secure(packaged, host)}
    instance.configure("demo:app", workers=2, listen=[{**entry, "http3": True}])
    packaged.systemctl("enable", "--now", instance.socket)
    datagram, stream = "127.0.0.1:8443 (Datagram)", "127.0.0.1:8443 (Stream)"
    assert sorted(packaged.show(instance.socket, "Listen").splitlines()) == [
        *(datagram, datagram, stream)
    ]
    shown = packaged.curl(
        f"https://{host}:8443/",
        *("--http3-only", "--fail", "--cacert", "/etc/pounce/shop.ca", "--output", "/dev/null"),
        *("--resolve", f"{host}:8443:127.0.0.1", "--write-out", "%{http_version}"),
        check=False,
    )
    # The first datagram has started the service.
    assert shown.stdout == "3", shown.stderr
    assert not [entry for entry in instance.journal() if int(entry["PRIORITY"]) <= 4]


def test_an_edited_file_does_not_make_systemctl_warn(packaged: Machine, instance: Instance) -> None:
    instance.configure("demo:app", listen=[{"address": "127.0.0.1:8100"}])
    packaged.systemctl("daemon-reload")
    packaged.systemctl("start", instance.service)
    packaged.run("touch", "--date=+1 minute", f"/etc/pounce/{instance.name}.toml")
    for verb, unit in (
        ("status", instance.socket),
        ("reload", instance.service),
        ("restart", instance.service),
        ("restart", instance.socket),
    ):
        assert "changed on disk" not in packaged.systemctl(verb, unit, check=False).stderr


def test_an_abstract_socket(packaged: Machine, instance: Instance) -> None:
    instance.configure("demo:app", listen=[{"address": "unix:@pounce/shop"}])
    packaged.systemctl("daemon-reload")
    packaged.systemctl("start", instance.service)
    assert packaged.show(instance.socket, "Listen") == "@pounce/shop (Stream)"
    asked = ("--fail", "--output", "/dev/null", "--abstract-unix-socket", "pounce/shop")
    assert packaged.curl("http://localhost/", *asked).returncode == 0
    messages = [entry["MESSAGE"] for entry in instance.journal()]
    assert "listening on unix:@pounce/shop" in messages
    assert [e["MESSAGE"] for e in instance.journal() if int(e["PRIORITY"]) <= 4] == []


def test_a_broken_file_breaks_nothing_else(packaged: Machine, instance: Instance) -> None:
    broken = Instance(packaged, "broken")
    broken.configure_text('app = "demo:app"\nworkers = \n')
    instance.configure("demo:app", listen=[{"address": "127.0.0.1:8100"}])
    packaged.systemctl("daemon-reload")
    assert packaged.show(instance.socket, "Listen") == "127.0.0.1:8100 (Stream)"
    messages = [entry["MESSAGE"] for entry in broken.journal()]
    assert "/etc/pounce/broken.toml:2: not TOML: Invalid value (column 11)" in messages
    broken.remove()


def test_purged_it_leaves_nothing_behind(plain: Machine, packages: list[Path]) -> None:
    before = files(plain)
    install(plain, packages)
    instance = Instance(plain, "shop")
    plain.run("pounce", "init", "shop", "--app", "demo:app", "--directory", APPLICATIONS)
    plain.systemctl("enable", "--now", instance.service)
    assert instance.curl("/", "--fail").returncode == 0
    apt(plain, "remove", "pounce", "python3-pounce")
    for unit in (instance.socket, instance.service, "pounce.service"):
        assert plain.show(unit, "ActiveState") in ("inactive", "failed")
    assert plain.path("/etc/pounce/shop.toml").exists()
    preseed(plain, "true")
    apt(plain, "purge", "pounce", "python3-pounce")
    assert files(plain) - before == set()
    assert not plain.path("/run/pounce").exists()


def test_an_upgrade_restarts_what_runs_and_no_client_notices(
    plain: Machine, packages: list[Path], tmp_path: Path
) -> None:
    install(plain, packages)
    running, stopped = instances = [Instance(plain, name) for name in ("one", "two")]
    for instance in instances:
        instance.configure("load:app", workers=2)
        plain.systemctl("enable", "--now", instance.socket)
        plain.systemctl("enable", instance.service)
    running.start()
    supervisor = running.show("MainPID")
    address = Address(kind="unix", path=str(plain.path(running.path)))
    busy = Plan(address=address, connections=16, think=0.01, duration=120)
    idle = Plan(address=address, connections=16, think=math.inf, duration=120)
    with Background(busy) as requests, Background(idle) as connections:
        requests.wait_for_more(100)
        install(plain, newer(packages, tmp_path))
        requests.wait_for_more(100)
    version = plain.run("dpkg-query", "-Wf", "${Version}", "pounce").stdout
    assert version.endswith("+newer")
    assert running.show("ActiveState") == "active"
    assert running.show("MainPID") != supervisor
    assert stopped.show("ActiveState") == "inactive"
    for result in (requests.result(), connections.result()):
        result.assert_nothing_lost()
