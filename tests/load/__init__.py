"""The project's own HTTP/1.1 load client: it counts what a client sees of its server.

A general HTTP library repairs what it can (it retries, reconnects, ignores an idle close); this
one speaks to the socket itself and counts all of that. `run` is for a program that waits,
`Background` for a test that does something to the server meanwhile.
"""

from tests.load.background import Background, run
from tests.load.plan import Echo, Plan, Slow, Stream, Upload
from tests.load.result import Drop, Result, ServedBy

__all__ = [
    "Background",
    "Drop",
    "Echo",
    "Plan",
    "Result",
    "ServedBy",
    "Slow",
    "Stream",
    "Upload",
    "run",
]
