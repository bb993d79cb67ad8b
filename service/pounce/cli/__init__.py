"""The command ``pounce``. One module a subcommand: each parses, calls and prints.

Exit codes: 2 for a command line that click cannot read (an unknown flag), otherwise those
of `pounce.errors`: 78 for a refused value, whether a file or a flag gave it.
"""

import os
import sys
from pathlib import Path

from pounce.errors import PounceError

# By this variable, shells ask the command what could come next.
_COMPLETION = "_POUNCE_COMPLETE"


def main() -> None:
    """Run the command line and exit; the entry point of the ``pounce`` script."""
    try:
        _run(sys.argv[1:])
    except PounceError as error:
        lines = [f"pounce: error: {line}" for line in error.message.splitlines()]
        lines += [f"  {line}" for line in error.hint.splitlines()]
        print(*lines, sep="\n", file=sys.stderr)  # noqa: T201 - the command's output
        sys.exit(error.exit_code)


def _run(arguments: list[str]) -> None:
    match arguments:
        case ["serve", name] if _is_service(name) and _COMPLETION not in os.environ:
            _serve(name, arguments)
        case _:
            from pounce.cli.commands import pounce

            pounce(prog_name="pounce")


def _is_service(name: str) -> bool:
    return not name.startswith("-") and ":" not in name


def _serve(name: str, arguments: list[str]) -> None:
    """``pounce serve NAME`` as units call it, without click: clients wait while it is imported."""
    from pounce.assembly import foreground
    from pounce.config.file import Invocation, find

    foreground.run(Invocation(find(name), {}, Path.cwd()), arguments)
