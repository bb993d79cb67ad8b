"""Reloads under load: no client notices, whatever it does and whatever becomes of the reload."""

import math
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.load import Echo, Slow, Stream, Upload
from tests.modes import MODES, both_modes
from tests.reloads import assert_unnoticed, reload_under
from tests.service import Service, comes_true, launched, serving, wait_until

# Every pair of these three, though not every combination.
everywhere = pytest.mark.parametrize(
    ("mode", "workers", "unix"),
    [
        pytest.param("process", "1", False, id="process-1-tcp"),
        pytest.param("process", "2", True, id="process-2-unix"),
        pytest.param("thread", "1", True, id="thread-1-unix"),
        pytest.param("thread", "2", False, id="thread-2-tcp"),
    ],
)

RELOADS = 3
reload_each_second = partial(reload_under, reloads=RELOADS, pace=1.0)
VERSION = "from tests.apps.load import Load\napp = Load({!r})\n"
LOOP_AS_VERSION = """
import asyncio
from tests.apps.load import Load

class App(Load):
    async def __call__(self, *arguments):
        self.version = type(asyncio.get_running_loop()).__module__
        await super().__call__(*arguments)

app = App()
"""


class Release:
    """The application's directory: a symbolic link that a deploy moves."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.current = directory / "current"
        self._count = 0

    def deploy(self, code: str, parts: str = "") -> None:
        """Make *code* the application's package, with *parts* as its module, in a new directory."""
        self._count += 1
        release = self.directory / f"release-{self._count}"
        (release / "shop").mkdir(parents=True)
        (release / "shop" / "__init__.py").write_text(code)
        (release / "shop" / "parts.py").write_text(parts)
        moving = self.directory / "moving"
        moving.symlink_to(release)
        moving.rename(self.current)

    def deploy_version(self, version: str, first: str = "") -> None:
        """Deploy the load application as *version*, with *first* run before."""
        self.deploy(f"{first}\n{VERSION.format(version)}")


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=os.pathsep)
    release = Release(tmp_path)
    release.deploy_version("1")
    return release


@contextmanager
def deployed(release: Release, *flags: str) -> Iterator[Service]:
    with serving(release.directory, *flags, app="shop:app", apps=release.current) as service:
        yield service


# Whatever clients do


@everywhere
def test_full_load(tmp_path: Path, mode: str, workers: str, unix: bool) -> None:
    flags = ("--worker-mode", mode, "--workers", workers)
    with serving(tmp_path, *flags, unix=unix) as service, service.load(connections=32) as load:
        load.wait_for_more(1000)
        reload_each_second(service, load)
    assert_unnoticed(load.result(), RELOADS)


@everywhere
def test_every_kind_of_client_at_once(tmp_path: Path, mode: str, workers: str, unix: bool) -> None:
    plans = {
        "think time": {"work": Echo(), "think": 0.2, "connections": 64},
        "slow requests": {"work": Slow(200), "connections": 32},
        "uploads": {"work": Upload(pieces=20, ms=20), "connections": 16},
        "chunked uploads": {"work": Upload(pieces=20, ms=20, chunked=True), "connections": 16},
        "streams": {"work": Stream(chunks=20, ms=20), "connections": 16},
    }
    flags = ("--worker-mode", mode, "--workers", workers)
    with serving(tmp_path, *flags, unix=unix) as service, ExitStack() as stack:
        loads = [stack.enter_context(service.load(**plan)) for plan in plans.values()]
        for load in loads:
            load.wait_for_more(10)
        reload_each_second(service, *loads)
    for name, load in zip(plans, loads, strict=True):
        result = load.result()
        assert result.answered > 10, name
        assert_unnoticed(result, RELOADS)


@both_modes
def test_generations_on_different_event_loops(release: Release, mode: str) -> None:
    release.deploy(LOOP_AS_VERSION)
    flags = ("--worker-mode", mode, "--workers", "2")
    with deployed(release, *flags) as service, service.load(connections=32) as load:
        file = release.directory / "service.toml"
        rest = file.read_text()
        for generation, loop in enumerate(("asyncio", "uvloop", "asyncio"), 2):
            load.wait_for_more(100)
            file.write_text(f'loop = "{loop}"\n{rest}')
            service.reload(generation)
        load.wait_for_more(100)
    result = load.result()
    assert_unnoticed(result, RELOADS)
    assert {(each.generation, each.version) for each in result.served_by} == {
        ("1", "uvloop"),
        ("2", "asyncio.unix_events"),
        ("3", "uvloop"),
        ("4", "asyncio.unix_events"),
    }


@everywhere
def test_a_thousand_idle_connections(tmp_path: Path, mode: str, workers: str, unix: bool) -> None:
    flags = ("--worker-mode", mode, "--workers", workers)
    with (
        serving(tmp_path, *flags, unix=unix) as service,
        service.load(connections=1000, think=math.inf) as sitting,
        service.load(connections=50, think=0.5) as visiting,
    ):
        sitting.wait_until(lambda result: result.answered == 1000)
        reload_each_second(service, visiting)
    assert_unnoticed(visiting.result(), RELOADS)
    result = sitting.result()
    result.assert_nothing_lost()
    assert result.answered == 2000
    assert result.generations == {"1", str(RELOADS + 1)}


# What is served afterwards


@both_modes
def test_new_code_serves_at_once_and_none_is_mixed(release: Release, mode: str) -> None:
    with (
        deployed(release, "--worker-mode", mode, "--workers", "2") as service,
        service.load(connections=16) as load,
    ):
        load.wait_for_more(100)
        for version in range(2, 5):
            release.deploy_version(str(version))
            service.reload(version)
            with service.connect() as wire:
                served_by = wire.get("/").headers[b"x-served-by"].decode().split()
            assert (served_by[0], served_by[3]) == (str(version), str(version))
        load.wait_for_more(100)
    result = load.result()
    assert_unnoticed(result, reloads=3)
    assert {(each.generation, each.version) for each in result.served_by} == {
        (str(number), str(number)) for number in range(1, 5)
    }


@both_modes
def test_the_old_generation_goes_when_its_requests_are_done(tmp_path: Path, mode: str) -> None:
    with (
        serving(tmp_path, "--worker-mode", mode, "--workers", "2") as service,
        service.connect() as slow,
        service.connect() as idle,
    ):
        old = idle.get("/").headers[b"x-served-by"]
        slow.send("/slow?ms=1500")
        service.reload(2)
        assert idle.get("/").headers[b"x-served-by"] != old
        assert "generation 1 is retired" not in service.log
        answer = slow.receive()
        assert answer is not None
        assert (answer.status, answer.closes) == (200, False)
        service.expect("generation 1 is retired")
        assert slow.get("/").headers[b"x-served-by"].startswith(b"2 ")


@both_modes
@pytest.mark.parametrize(
    ("linger", "grace", "whole"),
    [
        pytest.param("0", "30", True, id="ends-at-once"),
        pytest.param("2500", "8", True, id="ends-slowly"),
        pytest.param("60000", "0.5", False, id="does-not-end"),
    ],
)
def test_an_endless_response_is_told_to_end_at_reload_timeout(
    tmp_path: Path, mode: str, linger: str, grace: str, whole: bool
) -> None:
    """Its handler then has the time that a stop gives."""
    times = ("--reload-timeout", "1", "--shutdown-timeout", grace)
    with (
        serving(tmp_path, "--worker-mode", mode, *times) as service,
        service.connect() as wire,
    ):
        wire.send(f"/events?linger={linger}")
        # A loop that has answered this has read what was sent to it before.
        service.connect_to("0").sock.close()
        service.reload(2)
        answer = wire.receive()
        service.expect("generation 1 is retired")
    assert (answer is not None) is whole
    if answer is not None:
        assert b"data: 5\n\n" in answer.body
        assert answer.body.endswith(b" 1\n")


# Reloads that fail

BROKEN = {
    "syntax": "app = (",
    "import": "import no_such_module",
    "nothing": "application = 1",
    "exit": "import sys\nsys.exit(3)",
    "lifespan": (
        "async def app(scope, receive, send):\n"
        "    await receive()\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n"
    ),
    "slow": "import time\ntime.sleep(30)",
    "killed": "import os\nos.kill(os.getpid(), 9)",
}
# A thread cannot be ended, and the process of its generation is the service's own.
OF_A_PROCESS = ("slow", "killed")
FAILURES = [
    pytest.param(mode, code, id=f"{mode}-{name}")
    for mode in MODES
    for name, code in BROKEN.items()
    if mode == "process" or name not in OF_A_PROCESS
]


@pytest.mark.parametrize(("mode", "code"), FAILURES)
def test_a_reload_that_fails_leaves_the_old_generation_untouched(
    release: Release, mode: str, code: str
) -> None:
    flags = ("--worker-mode", mode, "--workers", "2", "--startup-timeout", "3")
    with deployed(release, *flags) as service:
        service.wait_for_slots("0", "1")
        with service.load(connections=16) as load:
            load.wait_until(lambda result: result.workers == {"0", "1"})
            before = load.so_far().pids, service.workers
            release.deploy(code)
            service.send_signal(signal.SIGHUP)
            service.expect("reload failed, the old code still serves")
            load.wait_for_more(200)
            assert (load.so_far().pids, service.workers) == before
            release.deploy_version("fixed")
            service.reload(3)
            load.wait_for_more(200)
        service.expect("generation 1 is retired")
    result = load.result()
    result.assert_nothing_lost()
    assert {each.version for each in result.served_by} == {"1", "fixed"}
    assert result.generations == {"1", "3"}


def test_a_reload_that_cannot_write_its_access_log_changes_nothing(release: Release) -> None:
    with deployed(release) as service:
        file = release.directory / "service.toml"
        options = 'log_level = "error"\naccess_log = "/nonexistent/log"\n'
        file.write_text(options + file.read_text())
        service.send_signal(signal.SIGHUP)
        service.expect("reload failed, .*: the access log '/nonexistent/log' cannot be written")
        service.send_signal(signal.SIGTTIN)
        service.expect("INFO .* from 1 to 2 workers")


def test_a_worker_of_the_old_generation_listens_as_the_others_after_a_failed_reload(
    release: Release,
) -> None:
    with deployed(release, "--worker-mode", "process") as service:
        file = release.directory / "service.toml"
        file.write_text(f"{file.read_text()}proxy_protocol = true\n")
        release.deploy(BROKEN["import"])
        service.send_signal(signal.SIGHUP)
        service.expect("reload failed, the old code still serves")
        release.deploy_version("1")
        victim = service.workers["0"]
        os.kill(victim, signal.SIGKILL)
        service.expect_worker("0", victim)
        with service.connect() as wire:
            assert wire.get("/").status == 200


def test_releases_that_hang_while_they_are_imported_do_not_end_the_service(
    release: Release,
) -> None:
    with deployed(release, "--worker-mode", "thread", "--startup-timeout", "0.5") as service:
        release.deploy("import time; time.sleep(60)")
        for failures in (1, 2):
            service.send_signal(signal.SIGHUP)
            service.expect(rf"(reload failed, [\s\S]*){{{failures}}}")
        with pytest.raises(TimeoutError):
            service.wait(1.5)  # some looks at what hangs
        with service.connect() as wire:
            assert wire.get("/").status == 200


def test_a_release_that_was_given_up_is_not_served_later(release: Release) -> None:
    """A thread cannot be ended: its import goes on, beside the next generation's."""
    with deployed(release, "--worker-mode", "thread", "--startup-timeout", "3") as service:
        slow = "import time; time.sleep(4)"
        release.deploy(f"{slow}\nfrom shop.parts import app", VERSION.format("slow"))
        service.send_signal(signal.SIGHUP)
        service.expect("reload failed, the old code still serves: it was not ready within 3 s")
        release.deploy("from shop.parts import app", VERSION.format("fixed"))
        service.reload(3)
        with service.connect() as wire:
            assert wire.get("/").headers[b"x-served-by"].endswith(b" fixed")


@pytest.mark.parametrize(
    "mode",
    [
        "process",
        pytest.param(
            "thread",
            marks=pytest.mark.xfail(
                strict=True,
                raises=AssertionError,
                reason="waits for a generation's own interpreter: the import that hangs holds its "
                "module's lock, for which every later import waits",
            ),
        ),
    ],
)
def test_a_release_after_one_whose_import_hangs(release: Release, mode: str) -> None:
    flags = ("--worker-mode", mode, "--startup-timeout", "2")
    with deployed(release, *flags) as service:
        release.deploy("import time; time.sleep(60)")
        service.send_signal(signal.SIGHUP)
        service.expect("reload failed, the old code still serves")
        release.deploy_version("fixed")
        service.send_signal(signal.SIGHUP)
        assert comes_true(lambda: "generation 3 has taken over" in service.log, 8)


# What happens meanwhile


@both_modes
def test_a_slow_import_stalls_nobody(release: Release, mode: str) -> None:
    with (
        deployed(release, "--worker-mode", mode, "--workers", "2") as service,
        service.load(connections=16) as load,
    ):
        load.wait_for_more(100)
        release.deploy_version("2", first="import time; time.sleep(2)")
        service.reload(2)
        load.wait_for_more(100)
    result = load.result()
    assert_unnoticed(result, reloads=1)
    assert result.longest_pause_ms < 1500, "shorter than the import"


@both_modes
def test_signals_during_a_reload_make_one_more_follow(release: Release, mode: str) -> None:
    with deployed(release, "--worker-mode", mode) as service:
        release.deploy_version("2", first="import time; time.sleep(1)")
        service.send_signal(signal.SIGHUP)
        service.expect("starting generation 2")
        for _ in range(3):
            service.send_signal(signal.SIGHUP)
        service.expect("generation 3 has taken over")
        service.expect("generation 2 is retired")
        with service.connect() as wire:
            assert wire.get("/").headers[b"x-served-by"].startswith(b"3 ")
        service.send_signal(signal.SIGTERM)
        assert service.wait() == 0
        assert "generation 4" not in service.log


@both_modes
def test_a_stop_during_a_reload_does_not_wait_for_it(release: Release, mode: str) -> None:
    with deployed(release, "--worker-mode", mode) as service:
        release.deploy_version("2", first="import time; time.sleep(30)")
        service.send_signal(signal.SIGHUP)
        service.expect("starting generation 2")
        service.send_signal(signal.SIGTERM)
        assert service.wait() == 0


UNDER_WAY = 3


@both_modes
def test_nothing_is_left_of_old_generations(tmp_path: Path, mode: str) -> None:
    with (
        serving(tmp_path, "--worker-mode", mode, "--workers", "2") as service,
        service.load(connections=8, think=0.05) as load,
    ):
        load.wait_for_more(10)
        service.reload(2)
        service.expect("generation 1 is retired")
        load.wait_for_more(50)
        before = census(service)
        # One or another has not arrived yet, or was on its way from worker to worker.
        before["descriptors"] += UNDER_WAY
        for generation in range(3, 3 + 2 * UNDER_WAY):
            service.reload(generation)
            service.expect(f"generation {generation - 1} is retired")
        wait_until(lambda: fits(census(service), before), f"no more than {before}")
    load.result().assert_nothing_lost()


def fits(now: dict[str, int], before: dict[str, int]) -> bool:
    return all(now[kind] <= count for kind, count in before.items())


def census(service: Service) -> dict[str, int]:
    """How many descriptors, threads and children the supervisor has."""
    process = Path("/proc") / str(service.process.pid)
    children = process / "task" / str(service.process.pid) / "children"
    return {
        "descriptors": len(list((process / "fd").iterdir())),
        "threads": len(list((process / "task").iterdir())),
        "children": len(children.read_text().split()),
    }


def test_a_reload_before_the_first_generation_serves_follows_it(release: Release) -> None:
    release.deploy_version("1", first="import time; time.sleep(1)")
    with launched(release.directory, app="shop:app", apps=release.current) as service:
        service.expect("listening on")
        wait_until(lambda: catches_hangup(service), "a handler for SIGHUP")
        service.send_signal(signal.SIGHUP)
        service.expect("generation 2 has taken over")


def catches_hangup(service: Service) -> bool:
    status = (Path("/proc") / str(service.process.pid) / "status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGHUP - 1) & 1)
