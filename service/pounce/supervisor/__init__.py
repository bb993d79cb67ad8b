"""Supervising workers: processes or threads, in generations, one loop that never blocks."""

from pounce.supervisor.handle import _H3WorkerHandle, _WorkerHandle
from pounce.supervisor.supervisor import Supervisor
from pounce.supervisor.targets import _force_stop, _parallel_join_targets, _target_id
from pounce.workers import App, TCPWorker

__all__ = [
    "App",
    "Supervisor",
    "TCPWorker",
    "_H3WorkerHandle",
    "_WorkerHandle",
    "_force_stop",
    "_parallel_join_targets",
    "_target_id",
]
