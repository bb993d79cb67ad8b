"""The arguments that several subcommands share, derived from the declared options."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from pounce.cli.completion import complete_name
from pounce.config import SECTIONS, Listen, ServerConfig
from pounce.config_file import Given, Invocation, find
from pounce.kinds import Boolean, Choice, FilePath, Kind, Texts, toml
from pounce.options import Option, flagged, options

_OPTIONS = {option.key: option for option in (*options(ServerConfig), *flagged(Listen))}


class ConfiguredCommand(click.Command):
    """A subcommand that takes an application or a service's name, a file, and every option.

    Its function is called with them as one `Invocation`, beside its own parameters.
    """

    def __init__(self, name: str, *, params: list[click.Parameter], **attributes: Any) -> None:
        super().__init__(name, params=[*_shared(), *params, *_flags()], **attributes)

    def invoke(self, ctx: click.Context) -> Any:
        """Call the function."""
        params = ctx.params
        target, path = params.pop("target"), params.pop("config_file")
        words = {key: params.pop(key) for key in _OPTIONS}
        params["invocation"] = _invocation(target, path, words)
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the flags in the sections of the configuration."""
        headings = {key: SECTIONS[option.section] for key, option in _OPTIONS.items()}
        groups: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record and isinstance(parameter, click.Option):
                heading = headings.get(parameter.name or "", "Options")
                groups.setdefault(heading, []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def _shared() -> Iterator[click.Parameter]:
    yield click.Argument(
        ["target"], required=False, metavar="[APP|NAME]", shell_complete=complete_name
    )
    yield click.Option(
        ["config_file", "--config"],
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The configuration file to read.",
    )


def _flags() -> Iterator[click.Option]:
    """One flag an option."""
    return (_flag(option, option.flag) for option in _OPTIONS.values())


def configuration_flag(key: str) -> click.Option:
    """The flag, named for the key itself, that gives the configuration's option *key*."""
    return _flag(_OPTIONS[key], f"--{key}")


def _flag(option: Option, name: str) -> click.Option:
    """A flag. All are text to click: what is allowed is declared once, elsewhere."""
    if isinstance(option.kind, Boolean):
        pair = f"{name}/{_negative(option)}"
        return click.Option([option.key, pair], default=None, help=_help(option))
    return click.Option(
        [option.key, name],
        type=str,
        multiple=option.kind.repeatable,
        metavar=option.kind.metavar,
        help=_help(option),
        shell_complete=_completer(option.kind),
    )


def _completer(
    kind: Kind[Any],
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """What offers a shell the values of *kind* that begin with a word, where there are few."""

    def complete(
        _context: click.Context, _parameter: click.Parameter, word: str
    ) -> list[CompletionItem]:
        if isinstance(kind.item if isinstance(kind, Texts) else kind, FilePath):
            return [CompletionItem(word, type="file")]
        names = kind.names if isinstance(kind, Choice) else ()
        return [CompletionItem(name) for name in names if name.startswith(word)]

    return complete


def _help(option: Option) -> str:
    again = " May be repeated." if option.kind.repeatable else ""
    default = f" [default: {option.kind.write(option.default)}]" if option.default else ""
    return f"{option.summary[0].upper()}{option.summary[1:]}.{again}{default}"


def _negative(option: Option) -> str:
    return f"--no-{option.flag.removeprefix('--')}"


def _invocation(target: str | None, path: Path | None, words: Mapping[str, Any]) -> Invocation:
    given = {
        key: _given(_OPTIONS[key], value) for key, value in words.items() if value not in (None, ())
    }
    if target and ":" in target:
        if "app" in given:
            raise click.UsageError("The application is given twice: as APP and by --app.")
        given["app"] = Given("APP", (target,))
    elif target:
        if path:
            raise click.UsageError("A file is given twice: by NAME and by --config.")
        path = find(target)
    return Invocation(path and path.absolute(), given, Path.cwd())


def _given(option: Option, value: bool | str | tuple[str, ...]) -> Given:
    if isinstance(value, bool):
        return Given(option.flag if value else _negative(option), (toml(value),))
    return Given(option.flag, (value,) if isinstance(value, str) else value)
