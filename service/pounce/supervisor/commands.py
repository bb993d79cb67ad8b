"""The commands of `[deploy] before`: children of the supervisor that it never waits for."""

import logging
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO

from pounce.config.commands import find_program, program_of, search_path, split
from pounce.config.service import ServerConfig
from pounce.errors import PounceError
from pounce.events.lifecycle import CommandFailed, CommandStarted, CommandStopped, LifecycleEvent
from pounce.events.loggers import get_logger
from pounce.loop import Loop, Timer
from pounce.supervisor.targets import ended_how

logger = get_logger("pounce.deploy")

# Seconds between TERM and KILL: enough for a database to roll a transaction back.
_GRACE = 5.0
# Bytes that one turn of the loop reads: perhaps as many lines as half of them, each a log record.
_READ = 4_096
# Bytes of a line; a longer one is told in pieces.
_LONGEST = 16_384
# Bytes that a pipe holds, unless somebody has enlarged it.
_PIPE = 65_536

Tell = Callable[[str], None]
"""Hears that all commands have ended; its argument is why the deploy fails, or ""."""


class Commands:
    """Runs the commands that *config* names, one after the other, for generation *number*.

    They get *environment*, and what *config* sets in it. All of them together have
    ``startup_timeout`` seconds. `begin` starts the first one; *tell* is called once.
    """

    def __init__(
        self,
        config: ServerConfig,
        number: int,
        environment: Mapping[str, str],
        loop: Loop,
        emit: Callable[[LifecycleEvent], None],
        tell: Tell,
    ) -> None:
        self._directory = config.directory
        self._timeout = config.startup_timeout
        self._left = deque(config.deploy.before)
        self._number = number
        merged = {**environment, **config.environment}
        self._path = search_path(config.virtualenv, sys.prefix, merged)
        # A script that begins with "#!/usr/bin/env python3" finds the application's as well.
        self._environment = {**merged, "PATH": self._path}
        self._loop = loop
        self._emit = emit
        self._tell = tell
        self._timer: Timer | None = None
        self._running: _Command | None = None
        self.line = ""
        """The command that runs, as the administrator has written it."""
        self._reason = ""
        self._stopping = False

    def begin(self) -> None:
        """Start the first command, if there is one."""
        if self._left:
            self._set_timer(self._timeout, self._expire)
        self._next()

    def stop(self) -> None:
        """End the command that runs, by TERM, and start no other: the service stops."""
        self._stopping = True
        self._end("the service is stopping")

    def kill(self) -> None:
        """End the command that runs, now."""
        if self._running is not None:
            self._running.send(signal.SIGKILL)

    def close_in_child(self) -> None:
        """Undo what a forked child has inherited of this."""
        if self._running is not None:
            self._running.close()

    def _expire(self) -> None:
        self._end(
            f"it had not ended {self._timeout:g} s after the first command began (startup_timeout)"
        )

    def _end(self, reason: str) -> None:
        if self._running is not None and not self._reason:
            self._reason = reason
            self._running.send(signal.SIGTERM)
            self._set_timer(_GRACE, self.kill)

    def _set_timer(self, seconds: float, callback: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, callback)

    def _next(self) -> None:
        if not self._left:
            self._finish("")
            return
        self.line = self._left.popleft()
        self._emit(CommandStarted(self._number, self.line))
        try:
            self._running = _Command(self._start(), self._loop, self._hear, self._ended)
        except PounceError as error:
            self._fail(f"it cannot be run: {error}")
        except OSError as error:  # also a shortage, of processes or descriptors
            place = f"{error.filename}: " if error.filename else ""
            self._fail(f"it cannot be run: {place}{error.strerror}")

    def _start(self) -> subprocess.Popen[bytes]:
        words = split(self.line)
        return subprocess.Popen(  # noqa: S603 - the administrator names the program
            words,
            executable=find_program(words[0], self._directory, self._path),
            cwd=self._directory or None,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # To be ended with all that it starts; and a terminal's Ctrl-C is the supervisor's.
            process_group=0,
        )

    def _hear(self, line: str) -> None:
        extra = {"pounce": {"POUNCE_GENERATION": self._number}}
        # Whatever log_level is: the program, not pounce, decides what it prints.
        logger.handle(
            logger.makeRecord(
                logger.name, logging.INFO, __file__, 0, "%s", (line,), None, extra=extra
            )
        )

    def _ended(self, status: int | None, last: str) -> None:
        self._running = None
        said = f"the last line of its output is: {last}" if last else ""
        how = f"it {ended_how(status)}"
        if self._reason:
            self._fail(f"{self._reason}; {how}", said)
        elif status != 0:
            self._fail(how, said)
        else:
            self._next()

    def _fail(self, problem: str, said: str = "") -> None:
        # systemctl status shows the first line to everybody: no arguments and no output in it.
        program = program_of(self.line)
        whole = f"the command is {self.line}" if self.line != program else ""
        details = [f"  {each}" for each in (whole, said) if each]
        reason = "\n".join([f"[deploy] before: {program!r}: {problem}", *details])
        event = CommandStopped if self._stopping else CommandFailed
        self._emit(event(self._number, reason))
        self._finish(reason)

    def _finish(self, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._tell(reason)


class _Command:
    """One running command: hears its output, line by line, and its end.

    *ended* gets its exit status, negative for a signal, or None if somebody else has taken it;
    and the last line that it has written.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        loop: Loop,
        hear: Callable[[str], None],
        ended: Callable[[int | None, str], None],
    ) -> None:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        self._process = process
        self._output: IO[bytes] = process.stdout
        self._loop = loop
        self._hear = hear
        self._tell_end = ended
        self._rest = b""
        self._last = ""
        self._open = True
        try:
            self._pidfd = os.pidfd_open(process.pid)
        except OSError:  # no descriptor is left, and nobody would see it end
            self._kill_group()
            process.wait()
            self._output.close()
            raise
        os.set_blocking(self._output.fileno(), False)
        loop.watch(self._pidfd, self._ended)
        loop.watch(self._output.fileno(), self._read)

    def send(self, number: signal.Signals) -> None:
        """Signal the command, and all that it has started in its process group."""
        # It is not reaped before `_ended`, so that the group cannot be another one's.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def close(self) -> None:
        """Close its descriptors."""
        os.close(self._pidfd)
        self._output.close()

    def _read(self) -> bool:
        """Read what is there, at most _READ bytes; whether there may be more."""
        try:
            data = os.read(self._output.fileno(), _READ)
        except BlockingIOError:
            return False
        if not data and self._open:
            self._open = False
            self._loop.unwatch(self._output.fileno())
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._say(line)
        if len(self._rest) >= _LONGEST:
            self._say(self._rest)
            self._rest = b""
        return bool(data)

    def _say(self, line: bytes) -> None:
        text = line.decode(errors="backslashreplace").rstrip()
        self._last = text or self._last
        self._hear(text)

    def _ended(self) -> None:
        # What it has left in the background ends with it, as with ExecStartPre=. Its own process,
        # which is not reaped yet, keeps the number of the group from being another's.
        self._kill_group()
        # What the pipe still holds (pipe(7)). A process that has left the group may go on writing,
        # and is not waited for.
        for _ in range(_PIPE // _READ):
            if not self._read():
                break
        if self._rest:
            self._say(self._rest)
        self._loop.unwatch(self._pidfd)
        if self._open:
            self._loop.unwatch(self._output.fileno())
        status = self._reap()
        self.close()
        self._tell_end(status, self._last)

    def _reap(self) -> int | None:
        # Not Popen.wait(), which takes a status that somebody else has taken for success.
        try:
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        except ChildProcessError:
            self._process.returncode = -1
            return None
        status = result.si_status if result else 0
        exited = result is not None and result.si_code == os.CLD_EXITED
        self._process.returncode = status if exited else -status
        return self._process.returncode

    def _kill_group(self) -> None:
        self.send(signal.SIGKILL)
