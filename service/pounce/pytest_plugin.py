"""A pytest fixture that serves applications on free ports."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from pounce.assembly.embedding import Site, serving

Serve = Callable[..., Site]


@pytest.fixture
def pounce_serve() -> Iterator[Serve]:
    """Serve applications until the test ends: ``pounce_serve(app).url``.

    Arguments are those of `pounce.serving`. Raises PounceError where an application does not start.
    """
    with ExitStack() as stack:

        def serve(app: Any, **options: Any) -> Site:
            return stack.enter_context(serving(app, **options))

        yield serve
