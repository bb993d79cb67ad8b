"""What can go wrong, each with the exit code systemd and scripts rely on.

Exit codes follow sysexits.h(3head) where it has a fitting one: "starting again cannot help" (78)
can be told from the rest.
"""

import errno

EX_SOFTWARE = 70
EX_OSERR = 71
EX_CONFIG = 78


class PounceError(Exception):
    """An error told to a person: what is wrong, where, and (as *hint*) what to do about it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class ConfigError(PounceError):
    """The configuration is unusable; starting again without an edit cannot help."""

    exit_code = EX_CONFIG


class ApplicationError(PounceError):
    """The application could not be imported or started."""

    exit_code = EX_SOFTWARE


class ListenError(PounceError):
    """A listening socket could not be opened or is not one that can be served."""

    exit_code = EX_OSERR


_SHORTAGES = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN, errno.EWOULDBLOCK)
)


def is_shortage(error: OSError) -> bool:
    """Whether the system is short of something now: descriptors, memory, or room in a queue."""
    return error.errno in _SHORTAGES
