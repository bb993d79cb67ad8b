"""A service in the foreground, from an invocation to the end of the process."""

import faulthandler
import gc
import io
import sys
from functools import partial
from typing import NoReturn

from pounce.assembly.launch import prepare, reconfigure
from pounce.config.file import Invocation
from pounce.systemd.farewell import saying_why


def run(invocation: Invocation, arguments: list[str]) -> NoReturn:
    """Serve what *invocation* asks for; raises ConfigError.

    The virtual environment that it names takes over with the same command-line *arguments*.
    """
    # Imports make what stays: collections among it, a tenth of their time, would find nothing.
    gc.disable()
    with saying_why():
        settings = prepare(invocation, arguments)
        _set_up_output()
        # Not needed, and not paid for, where another interpreter takes over.
        from pounce.application import ending
        from pounce.assembly.server import Server
        from pounce.events import log
        from pounce.supervisor import titles

        # Nor is it looked at again: workers share it for as long as their collections leave it
        # alone (https://docs.python.org/3/library/gc.html#gc.freeze).
        gc.freeze()
        gc.enable()
        titles.name_service(invocation.path.stem if invocation.path else settings.config.app)
        titles.entitle("supervisor")
        server = Server(
            settings.config,
            reload_config=partial(reconfigure, invocation),
        )
    status = server.run()
    # What workers in threads have left; their generations are retired.
    if ending.await_threads() and server.has_run_applications:
        sys.exit(status)  # Python closes what they have left open
    log.finish()
    # The next run waits for this end, and taking the interpreter apart is most of it.
    ending.end_at_once(status, forked=False)


def _set_up_output() -> None:
    """Lose nothing that the application prints, nor the stacks of a crash in C.

    Python writes by the block where standard output is no terminal: lines would come to the journal
    late, and those of a worker that is killed never.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # None, where it was closed
        sys.stdout.reconfigure(line_buffering=True)
    if sys.stderr is not None:
        faulthandler.enable()
