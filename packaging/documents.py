"""Write the manual's sources and the shells' completions into a directory.

    python packaging/documents.py DIRECTORY

Options are described where they are declared, and nowhere else: packaging/man holds the
pages' prose, with @PLACES@ for what is derived. scdoc(1) makes roff of the result.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from pounce import __version__
from pounce.cli.arguments import ConfiguredCommand
from pounce.cli.commands import COMMANDS, pounce
from pounce.cli.serve import serve
from pounce.config.options import Option, Records, Table, flagged, members, options
from pounce.config.service import SECTIONS, ServerConfig

MANUAL = Path(__file__).parent / "man"
DEVIATIONS = Path(__file__).parents[1] / "tests" / "conformance" / "DEVIATIONS.md"
COMPLETIONS = {"bash": "pounce", "zsh": "_pounce", "fish": "pounce.fish"}


def main(directory: Path) -> None:
    """Write everything; the names are those under which it is installed."""
    for page in sorted(MANUAL.glob("*.scd")):
        write(directory / "man" / page.name, render(page.read_text()))
    for shell, name in COMPLETIONS.items():
        write(directory / shell / name, completion(shell))


def write(path: Path, text: str) -> None:
    """Write *text*, and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def render(text: str) -> str:
    """Fill the places of a page."""
    places = {"COMMANDS": commands, "FLAGS": flags, "KEYS": keys, "DEVIATIONS": deviations}
    for name, write_lines in places.items():
        if f"@{name}@" in text:
            text = text.replace(f"@{name}@", "\n".join(write_lines()))
    return text.replace("@VERSION@", __version__)


def completion(shell: str) -> str:
    """The script that lets *shell* ask pounce what could come next."""
    made = get_completion_class(shell)
    if made is None:
        raise ValueError(f"click knows no completion for {shell}")
    return made(pounce, {}, "pounce", "_POUNCE_COMPLETE").source()


def commands() -> Iterator[str]:
    """Each subcommand: how it is called, what it does, the flags of its own."""
    for name, command in subcommands():
        context = click.Context(command, info_name=f"pounce {name}")
        usage = " ".join(command.collect_usage_pieces(context))
        yield f"## pounce {name} {usage}"  # a heading knows no markup
        yield ""
        for paragraph in (command.help or "").split("\n\n"):
            yield escape(" ".join(paragraph.split()))
            yield ""
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not is_derived(command, parameter):
                yield from flag(parameter)


def subcommands() -> Iterator[tuple[str, click.Command]]:
    """Each subcommand by its name."""
    context = click.Context(pounce)
    for name in COMMANDS:
        command = pounce.get_command(context, name)
        assert command is not None  # noqa: S101 - it is listed
        yield name, command


def is_derived(command: click.Command, parameter: click.Option) -> bool:
    """Whether the flag is one of a configuration option, which several commands share."""
    return isinstance(command, ConfiguredCommand) and parameter.name in FLAGGED


def flags() -> Iterator[str]:
    """The flags of all configuration options, by section."""
    parameters = {each.name: each for each in serve.params}
    for section, chosen in sections(FLAGGED):
        yield f"## {section}"
        yield ""
        for each in chosen:
            parameter = parameters[each.name]
            if isinstance(parameter, click.Option):
                yield from flag(parameter)


def flag(parameter: click.Option) -> Iterator[str]:
    """One flag and its help."""
    names = ", ".join(f"*{escape(name)}*" for name in (*parameter.opts, *parameter.secondary_opts))
    value = f" _{escape(parameter.metavar)}_" if parameter.metavar else ""
    yield f"{names}{value}"
    yield f"\t{escape(parameter.help or '')}"
    yield ""


def keys() -> Iterator[str]:
    """The keys of the file, by section."""
    for section, chosen in sections(OPTIONS):
        yield f"## {section}"
        yield ""
        for each in chosen:
            yield from key(each)


def key(option: Option) -> Iterator[str]:
    """One key: what may be given, the default, what it means."""
    yield f"*{escape(heading(option))}*"
    yield f"\t{escape(sentence(option.summary))}. Allowed: {escape(option.kind.allowed)}."
    yield "\t" + " ".join(filter(None, (default(option), escape(option.details)))).strip()
    yield ""
    for each in members(option):
        yield from ("\t" + line if line else line for line in key(each))


def heading(option: Option) -> str:
    """The key as a file has it, with a table's brackets."""
    if isinstance(option.kind, Records):
        return f"[[{option.key}]]"
    return f"[{option.key}]" if isinstance(option.kind, Table) else option.key


def deviations() -> Iterator[str]:
    """Where HTTP is not done to the letter: what, although which section, and why."""
    for line in DEVIATIONS.read_text().splitlines():
        if line.startswith("| ") and not line.startswith("| pounce |"):
            line = line.replace("`", "").replace("\\|", "|")
            what, although, since, _ = line.strip("| ").split(" | ")
            yield escape(sentence(what))
            yield "\t" + escape(f"{sentence(although)}. Why: {since}.")
            yield ""


def default(option: Option) -> str:
    """What holds where the key is not given."""
    if option.required:
        return "It has no default."
    empty = option.default in ("", ()) or option.default == {} or isinstance(option.kind, Table)
    return "" if empty else f"Default: {escape(option.kind.write(option.default))}."


def sections(chosen: dict[str, Option]) -> Iterator[tuple[str, list[Option]]]:
    """The configuration's sections, each with its *chosen* options."""
    for section, name in SECTIONS.items():
        yield name, [each for each in chosen.values() if each.section == section]


def sentence(text: str) -> str:
    """*text* with a capital first letter."""
    return text[0].upper() + text[1:]


def escape(text: str) -> str:
    """Take the meaning that scdoc(5) would give to them from characters."""
    return "".join(f"\\{each}" if each in "\\*_`#<>|[]" else each for each in text)


OPTIONS = {each.key: each for each in options(ServerConfig)}
FLAGGED = flagged(ServerConfig)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
