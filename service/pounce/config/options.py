"""Declaring options: a dataclass field that knows its kind, default, unit and help.

The command line, the file, the template and the manual are all derived from these
declarations, so an option is written down once.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Generic, TypeVar

from pounce.config.kinds import Invalid, Kind, Problem, Steps, collect, toml, unshown
from pounce.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Option:
    """One declared option. `key` is the field's name and the TOML key; `table`, where it stands.

    An empty `table` is the top of the file, or any table of an array.
    """

    section: str
    kind: Kind[Any]
    default: Any
    summary: str
    details: str
    key: str
    flag: str
    table: str = ""

    @property
    def name(self) -> str:
        """The option's name on the command line, where the key alone could be ambiguous."""
        return f"{self.table}_{self.key}" if self.table else self.key

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is MISSING


def option(
    section: str, kind: Kind[T], default: T, summary: str, *, details: str = "", flag: str = ""
) -> T:
    """Declare an option as a dataclass field.

    *summary* is one line of help; *details*, where needed, say what the values mean.
    *flag* is the command-line flag where it is not the key's own name.
    """
    declared = Option(section, kind, default, summary, details, key="", flag=flag)
    metadata = {"option": declared}
    if isinstance(default, Mapping):
        # A dataclass refuses such a default as it is, and cannot hash one.
        return field(default_factory=lambda: default, metadata=metadata, hash=False)
    return field(default=default, metadata=metadata)


def required(section: str, kind: Kind[T], summary: str, *, details: str = "") -> T:
    """Declare an option that has no default."""
    declared = Option(section, kind, MISSING, summary, details, key="", flag="")
    made: T = field(metadata={"option": declared})
    return made


def options(owner: type[Any], table: str = "") -> tuple[Option, ...]:
    """Every option that the dataclass *owner* declares, in order; those of *table*, if given."""
    made = _made.get((owner, table))
    if made is None:
        named = (_named(each.metadata["option"], each.name, table) for each in fields(owner))
        made = _made[owner, table] = tuple(named)
    return made


# Each is asked for many times while a service starts.
_made: dict[tuple[type[Any], str], tuple[Option, ...]] = {}


def members(option: Option) -> tuple[Option, ...]:
    """The options of each table that *option* consists of; none where it is a plain option."""
    if isinstance(option.kind, Table):
        return options(option.kind.owner, option.key)
    return options(option.kind.owner) if isinstance(option.kind, Records) else ()


def flagged(owner: type[Any]) -> dict[str, Option]:
    """Every option that a flag sets, by its name.

    Each option of a table has a flag. Of an array of tables, those whose declaration names a flag:
    it sets them in every table.
    """
    declared = options(owner)
    own = [members(each) if isinstance(each.kind, Table) else (each,) for each in declared]
    shared = [shared_by_records(each) for each in declared]
    return {each.name: each for group in (*own, *shared) for each in group}


def shared_by_records(option: Option) -> list[Option]:
    """Those options of an array of tables that a flag sets in every table."""
    if not isinstance(option.kind, Records):
        return []
    own = {each.name for each in fields(option.kind.owner) if each.metadata["option"].flag}
    return [each for each in members(option) if each.key in own]


def _named(declared: Option, key: str, table: str) -> Option:
    named = replace(declared, key=key, table=table)
    return replace(named, flag=declared.flag or "--" + named.name.replace("_", "-"))


def settle(instance: object) -> None:
    """Check every option of a new *instance*, frozen or not, and put the final values in it.

    Raises ConfigError, naming all that is wrong.
    """
    problems = []
    for each in options(type(instance)):
        try:
            value = each.kind.check(getattr(instance, each.key))
        except Invalid as invalid:
            problems += [f"{dotted((each.key, *at))}: {text}" for text, at in invalid.problems]
        else:
            object.__setattr__(instance, each.key, value)
    if problems:
        raise ConfigError("\n".join(problems))


def read(owner: type, table: Mapping[str, object]) -> dict[str, Any]:
    """Check a TOML *table* against the options of *owner*; return the values it gives.

    Raises Invalid with every problem: unknown and missing keys and refused values.
    """
    values, problems = {}, []
    known = {each.key: each for each in options(owner)}
    for key, value in table.items():
        if key not in known:
            problems.append(Problem(_unknown(key, list(known)), (key,)))
            continue
        try:
            values[key] = known[key].kind.check(value)
        except Invalid as invalid:
            problems += [Problem(text, (key, *at)) for text, at in invalid.problems]
    for key, each in known.items():
        if each.required and key not in table:
            problems.append(Problem(f"{key} is missing, expected {each.kind.allowed}"))
    if problems:
        raise Invalid(*problems)
    return values


def _unknown(key: str, known: list[str]) -> str:
    nearest = get_close_matches(key, known, n=1)
    if nearest:
        return f"unknown key; did you mean {nearest[0]}?"
    return f"unknown key; known are {', '.join(known)}"


class Table(Kind[T], Generic[T]):
    """One table, an *owner*. All its options have defaults, and flags: ``--TABLE-KEY``."""

    def __init__(self, owner: type[T]) -> None:
        self.owner = owner
        self.allowed = f"a table with {_keys(owner)}"

    def check(self, value: object) -> T:
        """Accept a table and an instance of the dataclass."""
        if isinstance(value, self.owner):
            return value
        if not isinstance(value, Mapping):
            raise self.refuse(value)
        values = read(self.owner, value)
        try:
            return self.owner(**values)
        except ConfigError as error:  # values that do not go together
            raise Invalid(Problem(error.message)) from None

    def refuse(self, value: object) -> Invalid:
        """Say that *value* is not allowed, without its text: a table's options may show none."""
        return unshown(value, self.allowed)

    def resolve(self, value: T, base: Path) -> T:
        """Resolve each option."""
        resolved = {
            each.key: each.kind.resolve(getattr(value, each.key), base)
            for each in options(self.owner)
        }
        return self.owner(**resolved)

    def merge(self, below: T, above: Any) -> Any:
        """Combine option by option; *above* is a mapping of the options that flags set.

        The result is a mapping, which `check` has yet to accept: whether values go together shows
        when all are known.
        """
        values = {each.key: getattr(below, each.key) for each in options(self.owner)}
        kinds = {each.key: each.kind for each in options(self.owner)}
        return values | {key: kinds[key].merge(values[key], above[key]) for key in above}


class Records(Kind[tuple[T, ...]], Generic[T]):
    """An array of tables, each an *owner*; a command-line word gives the first key's value."""

    repeatable = True

    def __init__(self, owner: type[T], unique: str, clash: Callable[[T, T], str]) -> None:
        """*clash* says why two records cannot be beside each other; "" where they can."""
        self.owner = owner
        self.record = Table(owner)
        self.unique = unique
        self.clash = clash
        self.metavar = options(owner)[0].kind.metavar
        self.allowed = f"tables with {_keys(owner)}"

    def check(self, value: object) -> tuple[T, ...]:
        """Accept lists of tables and of the dataclass's instances, without duplicates."""
        if not isinstance(value, list | tuple):
            raise self.refuse(value)
        records = tuple(collect(self.record.check, value))
        self._refuse_clashes(records)
        return records

    def _read(self, words: tuple[str, ...]) -> object:
        first = options(self.owner)[0].key
        return [{first: word} for word in words]

    def resolve(self, value: tuple[T, ...], base: Path) -> tuple[T, ...]:
        """Resolve each option of each record."""
        return tuple(self.record.resolve(record, base) for record in value)

    def _refuse_clashes(self, records: tuple[T, ...]) -> None:
        """Refuse each record that clashes with an earlier one."""
        problems = []
        for index, record in enumerate(records):
            told = (self.clash(earlier, record) for earlier in records[:index])
            if text := next(filter(None, told), ""):
                problems.append(Problem(text, (index, self.unique)))
        if problems:
            raise Invalid(*problems)


def _keys(owner: type[Any]) -> str:
    keys = [each.key for each in options(owner)]
    return f"the key{'s' if len(keys) > 1 else ''} {', '.join(keys)}"


def dotted(steps: Steps) -> str:
    """Write a place as people do: ``listen[0].address``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{_key(step)}" for step in steps)[1:]


def _key(text: str) -> str:
    """A key as TOML wants it: bare, or else quoted."""
    return text if re.fullmatch("[A-Za-z0-9_-]+", text) else toml(text)
