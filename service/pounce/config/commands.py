"""Command lines as people write them in a unit's ExecStart=, and the programs they name."""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from pounce.config.kinds import Invalid, Kind, Problem, Texts, unshown
from pounce.errors import ApplicationError

_ESCAPES = {
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "s": " ",
    "t": "\t",
    "v": "\v",
    "\\": "\\",
    '"': '"',
    "'": "'",
    ";": ";",
}
_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<quote>["'])
    |\\(?P<name>[abfnrstv\\"';])
    |\\(?:x(?P<hex>[0-9A-Fa-f]{2})|(?P<octal>[0-3][0-7]{2}))
    |\\(?:u(?P<short>[0-9A-Fa-f]{4})|U(?P<long>[0-9A-Fa-f]{8}))
    |(?P<text>[^\s"'\\]+|\\.?)""",
    re.VERBOSE | re.DOTALL,
)
"""What a command line consists of. An unknown escape stands for itself, as in a unit."""

_PREFIXES = "-@:+!|"
"""What may stand before a program in ExecStart=, to change how systemd runs it."""


def split(line: str) -> list[str]:
    """Split a command line into words as systemd.service(5) does, "COMMAND LINES".

    Quotes keep white space together and backslashes escape as in C, within quotes, too. There are
    no variables and no specifiers: ``$`` and ``%`` are ordinary characters. Raises ValueError.
    """
    words: list[str] = []
    word: str | None = None
    quote = ""
    for token in _TOKEN.finditer(line):
        text = token.group()
        if token["quote"] and quote in ("", text):
            quote, word = "" if quote else text, word or ""
        elif token["space"] and not quote:
            words += [] if word is None else [word]
            word = None
        elif text == ";" and word is None and not quote and _ends_word(line, token.end()):
            raise ValueError("';' does not separate commands here; make each one an item")
        else:
            word = (word or "") + _meaning(token)
    if quote:
        raise ValueError(f"a quote ({quote}) is not closed")
    words += [] if word is None else [word]
    return [os.fsdecode(os.fsencode(each)) for each in words]  # bytes that are one character


def program_of(line: str) -> str:
    """The program that a valid command line names, without its arguments."""
    return split(line)[0]


def _ends_word(line: str, index: int) -> bool:
    return index == len(line) or line[index].isspace()


def _meaning(token: re.Match[str]) -> str:
    """The characters that a token outside of the grammar stands for."""
    if token["name"]:
        return _ESCAPES[token["name"]]
    if token["hex"] or token["octal"]:  # a byte
        number = int(token["hex"], 16) if token["hex"] else int(token["octal"], 8)
        return os.fsdecode(bytes([number]))
    if token["short"] or token["long"]:
        number = int(token["short"] or token["long"], 16)
        if number > sys.maxunicode:
            raise ValueError(r"what \U stands for is no character")
        return chr(number)
    return token.group()


class CommandLine(Kind[str]):
    """A program and its arguments, in one string.

    Arguments may be secrets, and a reload's error is in the status, which everybody may read: it
    has nothing of the line.
    """

    allowed = "a program and its arguments, quoted as in ExecStart= (systemd.service(5))"
    metavar = "COMMAND"

    def check(self, value: object) -> str:
        """Accept str; whether there is such a program is seen where it is run."""
        if not isinstance(value, str):
            raise self.refuse(value)
        if problem := _problem(value):
            raise Invalid(Problem(f"{problem}, expected {self.allowed}"))
        return value

    def refuse(self, value: object) -> Invalid:
        """Say that *value* is not allowed."""
        return unshown(value, self.allowed)


class CommandLines(Texts):
    """Several of them."""

    def __init__(self) -> None:
        super().__init__(CommandLine())

    def refuse(self, value: object) -> Invalid:
        """Say that *value* is not allowed."""
        return unshown(value, self.allowed)


def _problem(line: str) -> str:
    try:
        words = split(line)
    except ValueError as error:
        return str(error)
    if not words or not words[0]:
        return "it names no program"
    if any("\0" in word for word in words):
        return "no program can be given the character NUL"
    if words[0][0] in _PREFIXES:
        return f"prefixes such as {words[0][0]!r} have no meaning here"
    return ""


def search_path(virtualenv: str, prefix: str, environment: Mapping[str, str]) -> str:
    """Where programs are looked for: the environment's ``bin``, then PATH (execvp(3)).

    *virtualenv* is the configured virtual environment; without one, *prefix* is where the
    interpreter is installed.
    """
    own = str(Path(virtualenv or prefix) / "bin")
    return os.pathsep.join((own, environment.get("PATH") or os.defpath))


def find_program(name: str, directory: str, path: str) -> str:
    """The file of the program *name*: relative to *directory* if it has a slash, else on *path*.

    Raises ApplicationError if there is none, or if this process may not execute it.
    """
    candidates = list(_candidates(name, directory, path))
    for each in candidates:
        if os.access(each, os.X_OK) and not Path(each).is_dir():
            _check_interpreter(each)
            return each
    there = next((each for each in candidates if _exists(each)), "")
    if there:
        is_directory = Path(there).is_dir()
        raise ApplicationError(
            f"{there} is {'a directory' if is_directory else 'not executable'}",
            hint="" if is_directory else f"chmod +x {there}, or name its interpreter before it",
        )
    where = candidates[0] if os.sep in name else path.replace(os.pathsep, ", ")
    raise ApplicationError(f"there is no program {name!r}", hint=f"looked for in {where}")


def _candidates(name: str, directory: str, path: str) -> Iterator[str]:
    if os.sep in name:
        yield str(Path(directory or ".").absolute() / name)
    else:
        yield from (str(Path(each) / name) for each in path.split(os.pathsep) if each)


def _exists(path: str) -> bool:
    """Whether there is a file at *path*, as far as this process may see; never an error."""
    return os.access(path, os.F_OK)


def _check_interpreter(program: str) -> None:
    """Raise ApplicationError where *program* is a script whose interpreter is not there.

    execve(2) says "No such file or directory" then, which everybody takes to be about the script:
    those of a virtual environment that was moved or copied are the usual ones.
    """
    try:
        with open(program, "rb") as file:  # noqa: PTH123 - the name is a string by now
            first = file.readline(4096)
    except OSError:  # it may be executed, but not read
        return
    words = first[2:].split() if first.startswith(b"#!") else []
    if words and not _exists(os.fsdecode(words[0])):
        raise ApplicationError(
            f"the interpreter of {program} is not there: {os.fsdecode(words[0])}",
            hint="a virtual environment that was moved has to be made anew in its place",
        )
