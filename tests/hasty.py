"""pounce, whose services may end sooner than systemd would start them again.

python -m tests.hasty serve ... --idle-exit "1 s"
"""

from pounce.cli import main
from pounce.config import ServerConfig
from pounce.durations import Duration
from pounce.options import flagged

kind = flagged(ServerConfig)["idle_exit"].kind
assert isinstance(kind, Duration)
kind.minimum = 1.0

if __name__ == "__main__":
    main()
