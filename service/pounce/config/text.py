"""The configuration as text for people: a commented template, and the effective values."""

import re
from collections.abc import Iterator, Mapping
from textwrap import wrap
from types import MappingProxyType
from typing import Any, NamedTuple

from pounce.config.file import Settings
from pounce.config.kinds import Steps, toml
from pounce.config.options import Option, Records, Table, dotted, members, options
from pounce.config.service import DEFAULT_LISTEN, SECTIONS, ServerConfig
from pounce.config.variables import Variables

_PREAMBLE = """\
The configuration of one service. Every option is here with its default; to set one,
remove the # in front of it. The options of [tables] come last, as TOML wants it.\
"""


def template(
    chosen: Mapping[str, Any] = MappingProxyType({}), owner: type[ServerConfig] = ServerConfig
) -> str:
    """Write a TOML file that sets the *chosen* options of *owner*; all others are commented out.

    A line that starts with ``#`` and no space is an option, so that removing those gives
    the defaults.
    """
    plain = [each for each in options(owner) if not _is_table(each)]
    lines = [f"# {line}" for line in _PREAMBLE.splitlines()]
    for section, heading in SECTIONS.items():
        members = [each for each in plain if each.section == section]
        if members:
            lines += ["", f"# --- {heading} ---"]
        for each in members:
            lines += ["", *_comment(each), _assignment(each, chosen)]
    for each in options(owner):
        if _is_table(each):
            lines += ["", *_comment(each), *_tables(each, chosen.get(each.key))]
    return "\n".join(lines) + "\n"


def _is_table(option: Option) -> bool:
    return isinstance(option.kind, Variables | Records | Table)


def _comment(option: Option) -> Iterator[str]:
    summary = option.summary[0].upper() + option.summary[1:]
    # The keys of a table are on the next lines.
    allowed = "" if isinstance(option.kind, Table) else f": {option.kind.allowed}"
    text = f"{summary}{allowed}. {option.details}".rstrip()
    text = re.sub(r'(?<=")(\d+) ', "\\1\N{NO-BREAK SPACE}", text)  # "30 s" stays on one line
    for line in wrap(text, width=88, initial_indent="# ", subsequent_indent="# "):
        yield line.replace("\N{NO-BREAK SPACE}", " ")


def _assignment(option: Option, chosen: Mapping[str, Any]) -> str:
    if option.key in chosen:
        return f"{option.key} = {option.kind.write(chosen[option.key])}"
    return f"#{option.key} = {option.kind.write(option.default)}"


def _tables(option: Option, chosen: Any) -> Iterator[str]:
    mark = "" if chosen else "#"
    if isinstance(option.kind, Records):
        for record in chosen or (DEFAULT_LISTEN,):
            yield f"{mark}[[{option.key}]]"
            yield from _members(option, record, mark)
    elif isinstance(option.kind, Table):
        yield f"{mark}[{option.key}]"
        yield from _members(option, option.kind.check(chosen or option.default), mark)
    else:
        yield f"{mark}[{option.key}]"
        for name, value in (chosen or {}).items():
            yield f"{dotted((name,))} = {toml(value)}"
        yield '# NAME = "value"'


def _members(option: Option, table: object, mark: str) -> Iterator[str]:
    for each in members(option):
        value = getattr(table, each.key)
        yield from _comment(each)
        yield f"{'#' if value == each.default else mark}{each.key} = {each.kind.write(value)}"


class Row(NamedTuple):
    """One value of an effective configuration, as text."""

    name: str
    value: str
    unit: str
    source: str


def rows(settings: Settings) -> Iterator[Row]:
    """Each value of *settings*: its name, the value as TOML, its unit, where it came from."""
    for option in options(type(settings.config)):
        value = getattr(settings.config, option.key)
        if isinstance(option.kind, Variables) and value:
            for name, text in value.items():
                steps = (option.key, name)
                yield Row(dotted(steps), toml(text), "", settings.source(*steps))
        elif isinstance(option.kind, Records) and value:
            for index, record in enumerate(value):
                yield from _member_rows(settings, option, (option.key, index), record)
        elif isinstance(option.kind, Table):
            yield from _member_rows(settings, option, (option.key,), value)
        else:
            source = settings.source(option.key)
            yield Row(option.key, option.kind.write(value), option.kind.unit, source)


def _member_rows(settings: Settings, option: Option, at: Steps, table: object) -> Iterator[Row]:
    for each in members(option):
        steps = (*at, each.key)
        value = each.kind.write(getattr(table, each.key))
        yield Row(dotted(steps), value, each.kind.unit, settings.source(*steps))


def table(settings: Settings) -> str:
    """Write the effective configuration in aligned columns."""
    content = list(rows(settings))
    names, values, units = (
        # A rare long value may stand out: it does not push every other line apart.
        max((len(row[column]) for row in content if len(row[column]) <= 40), default=0)
        for column in range(3)
    )
    return "".join(
        f"{row.name:{names}} = {row.value:{values}}  {row.unit:{units}}  {row.source}\n"
        for row in content
    )
