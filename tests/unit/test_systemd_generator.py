import os
from pathlib import Path

import pytest

from pounce.config.cpus import available_cpus
from pounce.net.address import Address
from pounce.systemd.generator import drop_in, generate, listen_stream, opened_by


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SYSTEMD_SCOPE", raising=False)


@pytest.mark.parametrize(
    ("address", "stream"),
    [
        ("127.0.0.1:8000", "127.0.0.1:8000"),
        ("[::1]:8000", "[::1]:8000"),
        ("[fe80::1%lo]:80", "[fe80::1]:80%%lo"),
        ("[fe80::1%7]:80", "[fe80::1]:80%%7"),
        (":80", "80"),
        ("unix:/run/shop.sock", "/run/shop.sock"),
        ("unix:@shop/100%", "@shop/100%%"),
        ("/srv/100%/a b", "/srv/100%%/a b"),
    ],
)
def test_what_a_socket_unit_is_told(address: str, stream: str) -> None:
    assert listen_stream(Address.parse(address)) == stream


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("localhost:8000", "not a name"),
        ("127.0.0.1:0", "needs a port"),
        ("[fe80::1%missing0]:80", "no network interface missing0"),
        ("/run/a\n[Service]", "cannot hold"),
        ("/run/a\\", "cannot hold"),
        ("/run/a ", "cannot hold"),
    ],
)
def test_what_a_socket_unit_cannot_open(address: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        listen_stream(Address.parse(address))


def listening(*addresses: str) -> str:
    return "".join(f"[[listen]]\naddress = {address!r}\n" for address in addresses)


def configure(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_drop_in_names_every_address(tmp_path: Path) -> None:
    path = configure(tmp_path / "shop.toml", listening("127.0.0.1:80", "/run/shop.sock"))
    assert drop_in(path) == (
        f"# Made by pounce-generator from {path}\n\n"
        "[Socket]\nListenStream=\nListenStream=127.0.0.1:80\nListenStream=/run/shop.sock\n"
    )


def test_what_it_has_opened_is_read_again(tmp_path: Path) -> None:
    addresses = [":80", "[::1]:81", "[fe80::1%lo]:82", "unix:/run/50%.sock", "unix:@a"]
    generate(configure(tmp_path / "shop.toml", listening(*addresses)), tmp_path)
    assert list(map(str, opened_by("shop", tmp_path))) == addresses


SECURE = "[[listen]]\naddress = ':443'\ncertificate = 'a.pem'\nhttp3 = true\n"


@pytest.mark.parametrize(
    ("workers", "sockets"),
    [("", 1), ("workers = 3\n", 3), ("workers = 0\n", available_cpus()), ("workers = -1\n", 1)],
)
def test_http3_has_a_udp_socket_for_each_worker(tmp_path: Path, workers: str, sockets: int) -> None:
    path = configure(tmp_path / "shop.toml", workers + SECURE + listening(":80"))
    _, _, opened = drop_in(path).partition("ListenStream=\n")
    assert opened == (
        "ListenStream=443\nListenStream=80\nReusePort=yes\n" + "ListenDatagram=443\n" * sockets
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        listening("fd:3"),
    ],
)
def test_without_an_address_to_open_the_template_stays_as_it_is(tmp_path: Path, text: str) -> None:
    path = configure(tmp_path / "shop.toml", text)
    assert drop_in(path) == ""
    generate(path, tmp_path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "text", ["[[listen]]\naddress = ':80'\nname = 'theirs'\n", listening("localhost:80")]
)
def test_the_default_address_is_not_open_beside_others(tmp_path: Path, text: str) -> None:
    path = configure(tmp_path / "shop.toml", text)
    assert drop_in(path) == (
        "[Socket]\nListenStream=\nListenStream=/run/pounce/shop.unused\nSocketMode=0600\n"
    )


def test_a_mistake_elsewhere_does_not_move_the_sockets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = configure(tmp_path / "shop.toml", "wokers = 2\n" + listening(":80"))
    assert "ListenStream=80\n" in drop_in(path)
    assert f"{path}:1: wokers: unknown key" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("app = \n", ":1: not TOML"),
        ("\n[[listen]]\naddress = 80\n", ":3: listen[0].address: found 80"),
        ("\n[[listen]]\n", ":2: listen[0]: address is missing"),
        ("listen = 3\n", ":1: listen: found 3"),
    ],
)
def test_a_broken_file_is_named_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, complaint: str
) -> None:
    path = configure(tmp_path / "shop.toml", text)
    generate(path, tmp_path)
    assert f"{path}{complaint}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_file_is_not_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "folder.toml").mkdir()
    for name in ("pipe", "folder", "gone"):
        generate(tmp_path / f"{name}.toml", tmp_path)
    assert capsys.readouterr().err.count("not a regular file") == 3


@pytest.mark.parametrize("name", ["a b", "-x", "a@b", "a:b", "ü"])
def test_names_that_systemd_would_escape_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = configure(tmp_path / f"{name}.toml", listening(":80"))
    generate(path, tmp_path)
    assert "cannot be the name of an instance" in capsys.readouterr().err


def test_an_unwritable_directory_is_logged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = configure(tmp_path / "shop.toml", listening(":80"))
    generate(path, tmp_path / "missing")
    assert "FileNotFoundError" in capsys.readouterr().err
