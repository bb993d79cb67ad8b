"""What holds for all tests."""

import resource

DESCRIPTORS = 16384
"""What hundreds of clients and their server need; a login's soft limit is 1024."""


def pytest_configure() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < DESCRIPTORS:
        wanted = DESCRIPTORS if hard == unlimited else min(hard, DESCRIPTORS)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
