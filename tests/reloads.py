"""Reloads under load, and what clients may notice of them: nothing."""

import time
from functools import partial

from tests.load import Background, Result
from tests.service import Service, wait_until


def reload_under(service: Service, *loads: Background, reloads: int, pace: float) -> None:
    """Reload so often, *pace* seconds apart or more, while each of *loads* goes on."""
    for generation in range(2, reloads + 2):
        next_one = time.monotonic() + pace
        service.reload(generation)
        for load in loads:
            load.wait_for_more(1)
        wait_until(partial(_is_over, next_one), "the time of the next reload")


def _is_over(moment: float) -> bool:
    return time.monotonic() > moment


def assert_unnoticed(result: Result, reloads: int) -> None:
    """Demand that nothing was lost, and that every generation has served."""
    result.assert_nothing_lost()
    assert result.generations == {str(number) for number in range(1, reloads + 2)}, result.table()
