"""An application hears of workers whose processes have ended, as prometheus_client has to."""

import os
import signal
from pathlib import Path

import pytest

from tests.service import launched, serving, wait_until

FLAGS = ("--workers", "2", "--worker-mode", "process")


def test_live_gauges_count_the_workers_that_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "metrics").mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "metrics"))
    flags = (*FLAGS, "--worker-ended", "metrics:worker_ended")
    with serving(tmp_path, *flags, app="metrics:app") as service:

        def live() -> bool:
            with service.connect() as wire:
                return b"\nlive 2.0\n" in wire.get("/").body

        wait_until(live, "two workers that live")
        first = service.workers
        service.reload(2)
        for slot, pid in first.items():
            service.expect(f"told of {pid} {slot} 1")
        killed = service.workers["0"]
        os.kill(killed, signal.SIGKILL)
        service.expect(f"told of {killed} 0 2")
        service.expect_worker("0", killed)
        wait_until(live, "two workers that live")
        assert len(list((tmp_path / "metrics").iterdir())) == 2


def test_a_function_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    flags = (*FLAGS, "--worker-ended", "load:nothing")
    with launched(tmp_path, *flags) as service:
        service.expect("did not become ready: .*nothing")
        assert service.wait() != 0
