"""What ps(1) shows of a service: whose process is which, and which thread."""

import os
import subprocess
from pathlib import Path

from tests.service import PYTHON, Service, serving, wait_until


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0")


def threads(pid: int) -> set[str]:
    return {path.read_text().strip() for path in Path(f"/proc/{pid}/task").glob("*/comm")}


def workers(service: Service) -> list[str]:
    return [command_line(pid) for _, pid in sorted(service.workers.items())]


def test_processes_say_what_they_are(tmp_path: Path) -> None:
    with serving(tmp_path, "--worker-mode", "process", "--workers", "2") as service:
        # Its configuration is service.toml.
        assert command_line(service.process.pid) == "pounce: service supervisor"
        assert workers(service) == [
            f"pounce: service worker {slot}, generation 1" for slot in (0, 1)
        ]
        service.reload(2)
        assert workers(service) == [
            f"pounce: service worker {slot}, generation 2" for slot in (0, 1)
        ]
        environment = Path(f"/proc/{service.workers['0']}/environ").read_bytes()
        assert b"PATH=" + os.environb[b"PATH"] in environment.split(b"\0")


def test_threads_say_what_they_are(tmp_path: Path) -> None:
    with serving(tmp_path, "--worker-mode", "thread", "--workers", "2") as service:
        pid = service.process.pid
        assert command_line(pid) == "pounce: service supervisor"
        assert {"lifespan gen 1", "worker 0 gen 1", "worker 1 gen 1"} <= threads(pid)
        service.reload(2)
        wait_until(lambda: "worker 0 gen 1" not in threads(pid), "the old workers' end")
        assert {"lifespan gen 2", "worker 0 gen 2", "worker 1 gen 2"} <= threads(pid)


TITLE = """
from pathlib import Path
from pounce.supervisor import titles

{before}
titles.entitle("supervisor")
print(Path("/proc/self/cmdline").read_text().rstrip("\\0"), end="")
"""


def shown(before: str) -> tuple[str, str]:
    """The program, and what is shown as its command line in the end."""
    program = TITLE.format(before=before)
    command = [str(PYTHON), "-c", program]
    shown = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=30)
    return "\0".join(command), shown.stdout


def test_a_title_that_does_not_fit_is_cut_off() -> None:
    program, title = shown("titles.name_service(5000 * 'x')")
    assert title == f"pounce: {5000 * 'x'}"[: len(program)]


def test_a_program_keeps_its_own_command_line() -> None:
    program, title = shown("")
    assert title == program
