"""Supervising workers: processes or threads, in generations, one loop that never blocks."""

from pounce.supervisor.handle import H3WorkerHandle as _H3WorkerHandle
from pounce.supervisor.handle import WorkerHandle as _WorkerHandle
from pounce.supervisor.supervisor import Supervisor
from pounce.supervisor.targets import force_stop as _force_stop
from pounce.supervisor.targets import join_all as _parallel_join_targets
from pounce.supervisor.targets import target_id as _target_id
from pounce.workers import App, TCPWorker

# The names that begin with an underscore are those by which embedders were promised them.
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
