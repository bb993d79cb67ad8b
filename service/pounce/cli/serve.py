"""``pounce serve``: run a service in the foreground."""

import faulthandler
import io
import sys
from functools import partial

import click

from pounce.cli.arguments import ConfiguredCommand
from pounce.config_file import Invocation
from pounce.launch import prepare, reconfigure


@click.command(cls=ConfiguredCommand)
def serve(invocation: Invocation) -> None:
    """Serve an application, in the foreground.

    APP is module:attribute, or module:factory() for what a function returns. A NAME stands
    for the file /etc/pounce/NAME.toml. Options given here go before the file's.
    """
    settings = prepare(invocation, sys.argv[1:])
    _set_up_output()
    # Not needed, and not paid for, where another interpreter takes over.
    from pounce import ending, log, titles
    from pounce.server import Server

    titles.name_service(invocation.path.stem if invocation.path else settings.config.app)
    titles.entitle("supervisor")
    server = Server(
        settings.config,
        reload_config=partial(reconfigure, invocation),
    )
    status = server.run()
    # What workers in threads have left; their generations are retired.
    if not ending.await_threads():
        log.finish()
        ending.end_at_once(status, forked=False)
    sys.exit(status)


def _set_up_output() -> None:
    """Lose nothing that the application prints, nor the stacks of a crash in C.

    Python writes by the block where standard output is no terminal: lines would come to the journal
    late, and those of a worker that is killed never.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # None, where it was closed
        sys.stdout.reconfigure(line_buffering=True)
    if sys.stderr is not None:
        faulthandler.enable()
