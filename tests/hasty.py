"""pounce, whose services may end sooner than systemd would start them again.

python -m tests.hasty serve ... --idle-exit "1 s"
"""

from pounce.cli import main
from pounce.config.durations import Duration
from pounce.config.options import flagged
from pounce.config.service import ServerConfig

kind = flagged(ServerConfig)["idle_exit"].kind
assert isinstance(kind, Duration)
kind.minimum = 1.0

if __name__ == "__main__":
    main()
