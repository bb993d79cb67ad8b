"""The arguments that several subcommands share, derived from the declared options."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import click
from click.shell_completion import CompletionItem

from pounce.cli.completion import complete_name
from pounce.config.file import Given, Invocation, find
from pounce.config.kinds import Boolean, Choice, FilePath, Kind, Texts, toml
from pounce.config.options import Option, flagged
from pounce.config.service import SECTIONS, ServerConfig


class ConfiguredCommand(click.Command):
    """A subcommand that takes an application or a service's name, a file, and every option.

    Its function is called with them as one `Invocation`, beside its own parameters.
    """

    owner: ClassVar[type[ServerConfig]] = ServerConfig
    """What declares the options."""

    def __init__(self, name: str, *, params: list[click.Parameter], **attributes: Any) -> None:
        self._options = flagged(self.owner)
        flags = (_flag(option, option.flag) for option in self._options.values())
        super().__init__(name, params=[*_shared(), *params, *flags], **attributes)

    def invoke(self, ctx: click.Context) -> Any:
        """Call the function."""
        params = ctx.params
        target, path = params.pop("target"), params.pop("config_file")
        given = {
            name: _given(option, value)
            for name, option in self._options.items()
            if (value := params.pop(name)) not in (None, ())
        }
        path = _name_target(target, path, given)
        params["invocation"] = Invocation(path, given, Path.cwd(), self.owner)
        return super().invoke(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the flags in the sections of the configuration."""
        headings = {key: SECTIONS[option.section] for key, option in self._options.items()}
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


def configuration_flag(key: str) -> click.Option:
    """The flag, named for the key itself, that gives the configuration's option *key*."""
    return _flag(flagged(ServerConfig)[key], flag_of(key))


def flag_of(key: str) -> str:
    """The flag that is named for *key*."""
    return f"--{key.replace('_', '-')}"


def _flag(option: Option, name: str) -> click.Option:
    """A flag. All are text to click: what is allowed is declared once, elsewhere."""
    if isinstance(option.kind, Boolean):
        pair = f"{name}/{_negative(option)}"
        return click.Option([option.name, pair], default=None, help=_help(option))
    return click.Option(
        [option.name, name],
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


def _name_target(target: str | None, path: Path | None, given: dict[str, Given]) -> Path | None:
    """Put *target* into *given* if it is an application; return the absolute path of the file."""
    if target and ":" in target:
        if "app" in given:
            raise click.UsageError("The application is given twice: as APP and by --app.")
        given["app"] = Given("APP", (target,))
    elif target:
        if path:
            raise click.UsageError("A file is given twice: by NAME and by --config.")
        path = find(target)
    return path and path.absolute()


def _given(option: Option, value: bool | str | tuple[str, ...]) -> Given:
    if isinstance(value, bool):
        return Given(option.flag if value else _negative(option), (toml(value),))
    return Given(option.flag, (value,) if isinstance(value, str) else value)
