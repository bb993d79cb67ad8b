"""What a shell may offer for a word: the names of services, and the values of options."""

from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

from pounce.config_file import configured
from pounce.kinds import Choice, FilePath, Kind

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def complete_name(
    _context: click.Context, _parameter: click.Parameter, word: str
) -> list[CompletionItem]:
    """The configured services whose names begin with *word*."""
    return [CompletionItem(name) for name in configured() if name.startswith(word)]


def complete_value(kind: Kind[Any]) -> Complete:
    """What offers the values of *kind* that begin with a word, where there are few."""

    def complete(
        _context: click.Context, _parameter: click.Parameter, word: str
    ) -> list[CompletionItem]:
        if isinstance(kind, FilePath):
            return [CompletionItem(word, type="file")]
        names = kind.names if isinstance(kind, Choice) else ()
        return [CompletionItem(name) for name in names if name.startswith(word)]

    return complete
