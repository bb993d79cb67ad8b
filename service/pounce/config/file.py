"""The configuration of one run: the file's values, with the command line's above them.

Everything wrong is reported at once, each with the line or the flag it is from.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import tomli

from pounce.config.kinds import Boolean, Invalid, Steps
from pounce.config.options import Option, dotted, flagged, members, options, read, shared_by_records
from pounce.config.service import DEFAULT_LISTEN, ServerConfig
from pounce.errors import ConfigError

CONFIG_DIRECTORY = Path("/etc/pounce")
SERVICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,23}")
"""The names a service may have: with "pounce-" before it, each is that of its user."""


class ConfigFile:
    """A TOML file, read: its data and, when asked, the line of each key."""

    def __init__(self, path: Path) -> None:
        """Read and parse the file at *path*; raises ConfigError."""
        self.path = path
        self._text = _read_text(path)
        self.data = _parse(path, self._text)

    @cached_property
    def lines(self) -> dict[Steps, int]:
        """The line on which each key and list item starts.

        The parser keeps no lines, but tells where a file could end: what a prefix of the
        file has that the parsable prefix before it had not, begins right after the latter.
        """
        lines: dict[Steps, int] = {}
        first, prefix = 1, ""
        for number, line in enumerate(self._text.split("\n"), start=1):
            prefix += f"{line}\n"
            try:
                data = tomli.loads(prefix)
            except ValueError:
                continue
            for steps in _places(data):
                lines.setdefault(steps, first)
            first = number + 1
        return lines

    def values(self, owner: type[ServerConfig] = ServerConfig) -> dict[str, Any]:
        """The values it gives to options of *owner*; raises ConfigError with everything wrong."""
        known = _options(owner)
        try:
            values = read(owner, self.data)
        except Invalid as invalid:
            problems = [(self._line(steps), steps, text) for text, steps in invalid.problems]
            raise ConfigError(
                "\n".join(
                    f"{self.path}:{line}: {dotted(steps)}: {text}{_misplaced(steps, known)}"
                    for line, steps, text in sorted(problems, key=lambda problem: problem[0])
                )
            ) from None
        base = self.path.absolute().parent
        return {key: known[key].kind.resolve(value, base) for key, value in values.items()}

    def _line(self, steps: Steps) -> int:
        """The line of the innermost part of *steps* that is written in the file."""
        written = (steps[:length] for length in range(len(steps), 0, -1))
        return next((self.lines[part] for part in written if part in self.lines), 1)


class Given(NamedTuple):
    """One option on the command line: how it was named there, and the words given for it."""

    label: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """An effective configuration that knows where each value came from."""

    config: ServerConfig
    file: ConfigFile | None
    given: Mapping[str, Given]
    given_values: Mapping[str, Any]

    def source(self, *steps: str | int) -> str:
        """Say where the value at *steps* is from: a flag, ``file:line`` or ``default``."""
        if self._is_given(steps):
            name = "_".join(str(step) for step in steps)  # that of a table's option
            given = self.given.get(name) or self.given[str(steps[0])]
            return f"command line {given.label}"
        if steps[0] == "listen" and steps[-1] in self.given_values:
            return f"command line {self.given[str(steps[-1])].label}"
        if self.file is not None and steps in self.file.lines:
            return f"{self.file.path}:{self.file.lines[steps]}"
        return "default"

    def _is_given(self, steps: Steps) -> bool:
        value = self.given_values.get(str(steps[0]))
        if isinstance(value, Mapping):
            return len(steps) > 1 and steps[1] in value
        return value is not None


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a command line asks for: a file, if any, options, and where relative paths start.

    Options are given by their names; *owner* declares them. Kept for as long as the service runs:
    a reload loads it again.
    """

    path: Path | None
    given: Mapping[str, Given]
    directory: Path
    owner: type[ServerConfig] = ServerConfig

    def load(self) -> Settings:
        """Read, check and merge everything; raises ConfigError with everything wrong."""
        file = ConfigFile(self.path) if self.path else None
        problems, values, given_values = [], {}, {}
        try:
            values = file.values(self.owner) if file else {}
        except ConfigError as error:
            problems.append(error.message)
        try:
            given_values = self._given_values()
        except ConfigError as error:
            problems.append(error.message)
        if problems:
            raise ConfigError("\n".join(problems))
        config = self.owner(**_merge(_options(self.owner), values, given_values))
        return Settings(config, file, self.given, given_values)

    def arguments(self) -> list[str]:
        """The file and the options as words that mean the same in every directory.

        Raises Invalid for what `load` refuses.
        """
        file = [f"--config={self.path}"] if self.path else []
        return file + [word for name in self.given for word in self._words(name)]

    def _words(self, name: str) -> list[str]:
        (label, words), option = self.given[name], flagged(self.owner)[name]
        if isinstance(option.kind, Boolean):
            return [label]  # one of the pair
        value = option.kind.parse(*words)
        resolved = option.kind.resolve(value, self.directory)
        if resolved != value:  # a path, or several
            words = (resolved,) if isinstance(resolved, str) else resolved
        return [f"{option.flag}={word}" for word in words]

    def _given_values(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        problems, known = [], flagged(self.owner)
        for name, (label, words) in self.given.items():
            option = known[name]
            table = values.setdefault(option.table, {}) if option.table else values
            try:
                value = option.kind.parse(*words)
                table[option.key] = option.kind.resolve(value, self.directory)
            except Invalid as invalid:
                problems += [f"{label}: {problem.text}" for problem in invalid.problems]
        if problems:
            raise ConfigError("\n".join(problems))
        return values


def _options(owner: type[ServerConfig]) -> dict[str, Option]:
    return {option.key: option for option in options(owner)}


def _merge(
    known: Mapping[str, Option], below: Mapping[str, Any], above: Mapping[str, Any]
) -> dict[str, Any]:
    """The file's values with the command line's, which have precedence."""
    values = dict(below)
    for key in above.keys() & known.keys():
        kind = known[key].kind
        values[key] = kind.merge(values[key], above[key]) if key in values else above[key]
    of_listeners = {option.key for option in shared_by_records(known["listen"])}
    shared = {key: above[key] for key in above.keys() & of_listeners}
    if shared:
        entries = values.get("listen") or (DEFAULT_LISTEN,)
        values["listen"] = tuple(replace(entry, **shared) for entry in entries)
    return values


def find(name: str, directory: Path = CONFIG_DIRECTORY) -> Path:
    """Return the file of the service *name*; raises ConfigError, naming those there are."""
    path = directory / f"{name}.toml"
    try:
        if "/" not in name:
            path.stat()
            return path
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError:
        return path  # It is there, or may be; reading it gives the reason.
    raise ConfigError(
        f"{name!r} is neither an application nor a service configured in {directory}",
        hint=f"configured there: {', '.join(configured(directory)) or 'none'}; "
        "an application is module:attribute; another file is given by --config FILE",
    )


def configured(directory: Path = CONFIG_DIRECTORY) -> list[str]:
    """The names of the services that have a file in *directory*, hidden files aside."""
    return sorted(path.stem for path in directory.glob("[!.]*.toml"))


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise ConfigError(f"{path}:{line}: not UTF-8: found the byte 0x{byte:02x}") from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        place = f"{path}:{error.lineno}"
        raise ConfigError(f"{place}: not TOML: {error.msg} (column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        # A number of thousands of digits, or lists nested a thousand deep.
        raise ConfigError(f"{path}: not readable as TOML: {error}") from None


def _places(value: object, at: Steps = ()) -> Iterator[Steps]:
    """Every place within parsed TOML, outer before inner."""
    if at:
        yield at
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _places(item, (*at, key))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, item in enumerate(value):
            yield from _places(item, (*at, index))


def _misplaced(steps: Steps, known: Mapping[str, Option]) -> str:
    """Explain a key that TOML has put into the table above it."""
    if len(steps) < 2:
        return ""
    own = {option.key for option in members(known[str(steps[0])])}
    if steps[-1] in known.keys() - own:
        return f"; to set the option {steps[-1]}, write it above the first [table]"
    return ""
