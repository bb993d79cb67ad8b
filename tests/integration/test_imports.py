"""What the supervisor's process imports: all of it at its start.

An import later on may find files of another version, after an upgrade or behind a changed link, or
none; and it takes a lock that a fork copies as it is.
"""

import os
import signal
from pathlib import Path

from pounce.net.address import Address
from tests.certificates import Authority
from tests.service import APPS, PYTHON, Service, free_port, running

# A hook is called for each module that is not loaded yet, and by forked workers, too.
PROGRAM = """
import os, sys

process, log = os.getpid(), open(sys.argv.pop(1), "a", buffering=1)

def note(event, arguments):
    if event == "import" and os.getpid() == process:
        print(arguments[0], file=log)

sys.addaudithook(note)
from pounce.cli import main
main()
"""


def test_a_service_without_a_certificate_is_spared_what_reads_them(tmp_path: Path) -> None:
    imports, log = tmp_path / "imports", tmp_path / "log"
    address = f"127.0.0.1:{free_port()}"
    arguments = ["serve", "load:app", "--directory", str(APPS), "--bind", address]
    with running([str(PYTHON), "-c", PROGRAM, str(imports), *arguments], log) as process:
        Service(process, Address.parse(address), log).wait_for_start()
    assert "pounce.net.certificate" in imports.read_text(), "the hook works"
    assert "cryptography" not in imports.read_text()


# Clients wait while a service starts: what it needs for nothing costs them time.
UNNEEDED = {"aioquic", "click", "cryptography", "h2", "rich", "systemd"}

# As in a unit, but the files are not in /etc/pounce.
FROM_ELSEWHERE = """
from functools import partial
from pathlib import Path
from pounce.config import file as config_file

config_file.find = partial(config_file.find, directory=Path(sys.argv.pop(1)))
main()
"""


def test_a_service_by_name_is_spared_what_it_does_not_need(tmp_path: Path) -> None:
    imports, log = tmp_path / "imports", tmp_path / "log"
    address = f"127.0.0.1:{free_port()}"
    (tmp_path / "shop.toml").write_text(
        f'app = "load:app"\ndirectory = "{APPS}"\n[[listen]]\naddress = "{address}"\n'
    )
    program = PROGRAM.replace("main()", FROM_ELSEWHERE)
    command = [str(PYTHON), "-c", program, str(imports), str(tmp_path), "serve", "shop"]
    with running(command, log) as process:
        Service(process, Address.parse(address), log).expect("generation 1 serves")
    packages = {name.partition(".")[0] for name in imports.read_text().split()}
    assert "uvloop" in packages, "the hook works"
    assert not packages & UNNEEDED


def test_nothing_is_imported_in_the_supervisor_after_the_start(tmp_path: Path) -> None:
    certificate, key = Authority().issue("127.0.0.1").write(tmp_path, "site")
    imports, log = tmp_path / "imports", tmp_path / "log"
    address = f"127.0.0.1:{free_port()}"
    arguments = ["serve", "load:app", "--directory", str(APPS), "--bind", address]
    flags = ["--worker-mode", "process", "--worker-timeout", "1", "--access-log", "on"]
    tls = ["--certificate", str(certificate), "--key", str(key)]
    command = [str(PYTHON), "-c", PROGRAM, str(imports), *arguments, *flags, *tls]
    with running(command, log) as process:
        service = Service(process, Address.parse(address), log)
        service.wait_for_start()
        before = imports.read_text()
        assert "pounce.supervisor" in before, "the hook works"
        service.reload(2)
        service.expect("generation 1 is retired")
        certificate.write_text("broken")
        service.send_signal(signal.SIGHUP)
        service.expect("reload failed")
        service.send_signal(signal.SIGTTIN)
        service.expect("from 1 to 2 workers")
        service.send_signal(signal.SIGTTOU)
        service.expect("from 2 to 1 workers")
        for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM):
            victim = service.workers["0"]
            os.kill(victim, number)
            service.expect_worker("0", victim)
        service.send_signal(signal.SIGUSR1)
        service.expect("opened anew")
        service.send_signal(signal.SIGTERM)
        assert service.wait() == 0
        assert imports.read_text() == before
