"""What the kernel does not refuse to root, refused to a test."""

import os
import resource
import sys
import traceback
from collections.abc import Callable

NOBODY = 65534


def as_ordinary_user(main: Callable[[], None], limit: int, value: int) -> None:
    """Run *main* in a process of an ordinary user, whose resource *limit* is *value*."""
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(limit, (value, resource.getrlimit(limit)[1]))
            if os.geteuid() == 0:
                os.setuid(NOBODY)
            main()
        except BaseException:
            traceback.print_exc(file=sys.stderr)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
