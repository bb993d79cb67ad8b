import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pounce.supervisor.budget import RestartBudget


def test_spends_up_to_its_number_within_the_window() -> None:
    budget = RestartBudget(2, 60.0)
    assert [budget.spend(now) for now in (0.0, 1.0, 2.0)] == [True, True, False]


def test_a_refused_restart_costs_nothing() -> None:
    budget = RestartBudget(1, 60.0)
    assert [budget.spend(now) for now in (0.0, 59.0, 60.0)] == [True, False, True]


def test_wait_is_the_time_until_the_oldest_leaves_the_window() -> None:
    budget = RestartBudget(2, 60.0)
    assert budget.wait(5.0) == 0.0
    budget.spend(10.0)
    budget.spend(20.0)
    assert budget.wait(30.0) == 40.0


def test_without_restarts_the_budget_never_allows_one() -> None:
    budget = RestartBudget(0, 60.0)
    assert not budget.spend(1e9)
    assert budget.wait(1e9) == 60.0


# 3.90001 + 0.1 is 4.00001, but 4.00001 - 0.1 is not 3.90001.
@example(restarts=1, window=0.1, steps=[1.9, 2.00001, 0.1, 0.0])
@given(
    restarts=st.integers(1, 5),
    window=st.floats(0.1, 100.0),
    steps=st.lists(st.floats(0.0, 50.0), max_size=60),
)
def test_no_window_holds_more_restarts_than_the_budget(
    restarts: int, window: float, steps: list[float]
) -> None:
    budget = RestartBudget(restarts, window)
    now, spent = 0.0, []
    for step in steps:
        now += step
        if budget.spend(now):
            spent.append(now)
    for first, beyond in zip(spent, spent[restarts:], strict=False):
        assert beyond - first >= window * (1 - 1e-9)


@given(window=st.floats(0.1, 100.0), start=st.floats(0.0, 1e6), late=st.floats(0.0, 100.0))
def test_waiting_as_told_is_enough(window: float, start: float, late: float) -> None:
    budget = RestartBudget(1, window)
    budget.spend(start)
    now = start + late
    wait = budget.wait(now)
    # The clock's own resolution, a nanosecond, is more than rounding can take away.
    assert budget.spend(now + wait + 1e-9)


def test_a_worker_that_was_ready_is_replaced_at_once() -> None:
    assert RestartBudget(30, 60.0).delay(0, was_ready=True) == 0.0


def test_failed_starts_are_tried_again_ever_more_slowly() -> None:
    budget = RestartBudget(30, 60.0)
    delays = [budget.delay(0, was_ready=False) for _ in range(9)]
    assert delays == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0])


def test_a_slot_that_fails_for_ever_stays_at_the_longest_delay() -> None:
    budget = RestartBudget(30, 60.0)
    assert {budget.delay(0, was_ready=False) for _ in range(3000)} >= {10.0}
    assert budget.delay(0, was_ready=False) == 10.0


def test_the_delay_is_each_slots_own_and_success_resets_it() -> None:
    budget = RestartBudget(30, 60.0)
    budget.delay(0, was_ready=False)
    assert budget.delay(1, was_ready=False) == 0.1
    budget.succeeded(0)
    assert budget.delay(0, was_ready=False) == 0.1
    assert budget.delay(1, was_ready=False) == 0.2


def test_a_restart_that_did_not_take_place_is_given_back() -> None:
    budget = RestartBudget(1, 60.0)
    assert budget.spend(100.0)
    budget.give_back()
    assert budget.spend(101.0)
    assert not budget.spend(102.0)
