"""Supervising workers: processes or threads, in generations, one loop that never blocks."""

from pounce.supervisor.supervisor import Supervisor
from pounce.workers import ASGIApp, TCPWorker

__all__ = ["ASGIApp", "Supervisor", "TCPWorker"]
