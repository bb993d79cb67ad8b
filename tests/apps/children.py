"""An application that starts programs, forks, prints and crashes, as the path says."""

import multiprocessing.context
import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any


def _ends_by(number: int) -> int:
    """How a program ends that gets a signal."""
    child = subprocess.Popen(["sleep", "30"])
    child.send_signal(number)
    return child.wait()


def _forked_ends_by(number: int) -> int | None:
    """How a child that executes nothing ends."""
    child = multiprocessing.context.ForkProcess(target=time.sleep, args=(30,))
    child.start()
    os.kill(child.pid or 0, number)
    child.join()
    return child.exitcode


def _print() -> str:
    print("a printed line")  # noqa: T201 - what is tested
    return "printed"


def _crash() -> None:
    signal.raise_signal(signal.SIGSEGV)


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    what, _, argument = environ["PATH_INFO"].lstrip("/").partition("/")
    names = ("POUNCE_WORKER", "POUNCE_GENERATION")
    answers: dict[str, Callable[[], object]] = {
        "exec": lambda: _ends_by(int(argument)),
        "fork": lambda: _forked_ends_by(int(argument)),
        "print": _print,
        "crash": _crash,
        "": lambda: " ".join(os.environ.get(name, "none") for name in names),
    }
    body = answers[what]()
    start_response("200 OK", [])
    return [str(body).encode()]
