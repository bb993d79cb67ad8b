"""`python -m tests.load ADDRESS`: put load on a server that runs tests.apps.load."""

import argparse
import math
import sys

from pounce.net.address import Address
from tests.load import Echo, Plan, Slow, Stream, Upload, run
from tests.load.plan import Work

WORKS: dict[str, Work] = {
    "echo": Echo(),
    "slow": Slow(),
    "stream": Stream(),
    "upload": Upload(),
    "chunked-upload": Upload(chunked=True),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("address", type=Address.parse, help="HOST:PORT or unix:PATH")
    parser.add_argument("--work", choices=WORKS, default="echo")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--duration", type=float, default=5.0, help="seconds")
    parser.add_argument("--requests", type=int, default=0, help="at most, in all; 0: any number")
    parser.add_argument("--think", type=float, default=0.0, help="seconds between requests")
    parser.add_argument("--sit", action="store_true", help="idle between the first and the last")
    parser.add_argument("--timeout", type=float, default=10.0, help="of a request, in seconds")
    parser.add_argument("--bind", default="", help="local IP address")
    parser.add_argument("--tls", default="", metavar="FILE", help="speak TLS, and trust FILE")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    plan = Plan(
        address=given.address,
        work=WORKS[given.work],
        connections=given.connections,
        duration=given.duration,
        requests=given.requests,
        think=math.inf if given.sit else given.think,
        timeout=given.timeout,
        bind=given.bind,
        tls=given.tls,
    )
    result = run(plan)
    sys.stdout.write((result.to_json() if given.json else result.table()) + "\n")
    return 1 if result.dropped or result.wrong or result.closed_idle else 0


if __name__ == "__main__":
    sys.exit(main())
