"""What ps(1), top(1) and `systemctl status` show as the names of a service's processes and threads.

A process's command line is what its argument memory holds (proc_pid_cmdline(5)), so it is written
over in place, as PostgreSQL and nginx do; what does not fit is cut off. They also use the memory of
the environment, which is left alone here: operators read /proc/PID/environ. PR_SET_MM (prctl(2))
would need a privilege. The process's name (comm) stays, so that pkill(1) finds all by it.

Only a process that `name_service` was called in has a title: the command line of a program that
embeds pounce is the program's own.
"""

import os
from contextlib import suppress
from pathlib import Path

_STAT = Path("/proc/self/stat")
_MEMORY = Path("/proc/self/mem")
_THREAD_NAME = Path("/proc/thread-self/comm")

# Fields 48 and 49 of the file, counted from the third: the second, a name, may hold spaces.
_ARG_START, _ARG_END = 45, 46

_service = ""


def name_service(name: str) -> None:
    """Give this process and those that it forks titles that begin with the service's *name*."""
    global _service
    _service = name


def entitle(role: str) -> None:
    """Show this process's command line as ``pounce: NAME ROLE``, if its service has a name."""
    if _service:
        # A sandbox may hide or protect these files. Then the command line stays as it is.
        with suppress(OSError, ValueError, IndexError):
            _overwrite(f"pounce: {_service} {role}".encode())


def name_thread(name: str) -> None:
    """Give this thread a name that the system shows; it keeps 15 bytes of it.

    Python does so by itself from 3.14 on, with the names that `threading` has.
    """
    with suppress(OSError):
        _THREAD_NAME.write_text(name)


def _overwrite(title: bytes) -> None:
    fields = _STAT.read_text().rpartition(")")[2].split()
    start, end = int(fields[_ARG_START]), int(fields[_ARG_END])
    if start < end:  # systems that imitate Linux say 0
        memory = os.open(_MEMORY, os.O_WRONLY | os.O_CLOEXEC)
        try:
            # The last byte has to be NUL: otherwise the kernel reads on in the environment.
            os.pwrite(memory, title[: end - start - 1].ljust(end - start, b"\0"), start)
        finally:
            os.close(memory)
