"""Supervising workers: processes or threads, in generations, one loop that never blocks."""

from pounce.supervisor.supervisor import Supervisor
from pounce.workers import App, TCPWorker

__all__ = ["App", "Supervisor", "TCPWorker"]
