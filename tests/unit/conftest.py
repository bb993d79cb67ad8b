"""What many units are tested with."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from pounce.loop import Loop


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What is entered here ends with the test."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def loop(stack: ExitStack) -> Loop:
    """The supervisor's loop."""
    loop = Loop()
    stack.callback(loop.close)
    return loop
