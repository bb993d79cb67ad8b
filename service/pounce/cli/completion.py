"""What a shell may offer for a word: the names of services."""

import click
from click.shell_completion import CompletionItem


def complete_name(
    _context: click.Context, _parameter: click.Parameter, word: str
) -> list[CompletionItem]:
    """The configured services whose names begin with *word*."""
    # Only a shell that asks for names pays for the configuration's modules.
    from pounce.config.file import configured

    return [CompletionItem(name) for name in configured() if name.startswith(word)]
