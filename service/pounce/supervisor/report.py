"""What the supervisor knows, put into words: for systemd's health check and for `pounce status`."""

from collections.abc import Sequence
from typing import Any

from pounce.config.commands import program_of
from pounce.config.service import ServerConfig
from pounce.events.lifecycle import HealthChecked, Phase
from pounce.supervisor.handle import Generation, WorkerHandle
from pounce.supervisor.states import GenerationState


def health(
    generations: Sequence[Generation],
    current: Generation,
    config: ServerConfig,
    phase: Phase,
    phase_elapsed: float,
    silent_for: float,
) -> HealthChecked:
    """The state of the whole service; *phase_elapsed* and *silent_for* are seconds."""
    ready = len(current.ready)
    startup = _startup_timeout(generations[-1].config if generations else config)
    timeouts = {
        Phase.STARTING: startup,
        Phase.RELOADING: startup,
        Phase.STOPPING: config.shutdown_timeout,
        Phase.SERVING: 0.0,
    }
    draining = [each for each in generations if each.state is GenerationState.DRAINING]
    return HealthChecked(
        phase=phase,
        generation=current.number,
        ready_workers=ready,
        workers=len(current.slots),
        connections=_connections(generations),
        draining_connections=_connections(draining),
        can_serve=ready > 0 and phase is not Phase.STOPPING,
        phase_elapsed=phase_elapsed,
        phase_timeout=timeouts[phase],
        silent_for=silent_for,
        # systemctl status shows it to everybody: without its arguments.
        command=next((program_of(each.command) for each in generations if each.command), ""),
    )


def _startup_timeout(config: ServerConfig) -> float:
    """How long the newest generation may take: its commands, and then its workers."""
    return config.startup_timeout * (2 if config.deploy.before else 1)


def status(
    generations: Sequence[Generation], phase: Phase, past_requests: int, now: float
) -> dict[str, Any]:
    """Every generation and worker, as the control socket's Status method answers.

    *past_requests* were answered by workers that are gone. Ages are in seconds; *now* is
    CLOCK_MONOTONIC.
    """
    present = sum(worker.row.requests for each in generations for worker in each.all_workers)
    return {
        "phase": phase.value,
        "requests": past_requests + present,
        "generations": [
            {
                "number": each.number,
                "state": each.state.name.lower(),
                "size": each.size,
                "command": each.command or None,
                "workers": [_worker(worker, now) for worker in _in_order(each)],
            }
            for each in generations
        ],
    }


def _in_order(generation: Generation) -> list[WorkerHandle]:
    """By slot; those that share one, because one takes over from the other, by age."""
    return sorted(generation.all_workers, key=lambda each: (each.slot, each.started_at))


def _worker(worker: WorkerHandle, now: float) -> dict[str, Any]:
    return {
        "kind": worker.kind,
        "slot": worker.worker_id,
        "id": worker.target.id,
        "state": worker.state.name.lower(),
        "age": round(now - worker.started_at, 3),
        "connections": worker.row.connections,
        "busy": worker.row.busy,
        "requests": worker.row.requests,
        "heartbeat_age": round(now - worker.row.heartbeat, 3) if worker.row.heartbeat else None,
    }


def _connections(generations: Sequence[Generation]) -> int:
    return sum(worker.row.connections for each in generations for worker in each.all_workers)
