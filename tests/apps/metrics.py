"""An application that prometheus_client counts, in several processes."""

import os
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, generate_latest, multiprocess

Gauge("live", "workers that live", multiprocess_mode="livesum").set(1)


def worker_ended(pid: int, worker: str, generation: int) -> None:
    os.write(2, f"told of {pid} {worker} {generation}\n".encode())
    multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    start_response("200 OK", [])
    return [generate_latest(registry)]
