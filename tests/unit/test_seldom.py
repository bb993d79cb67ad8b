"""Records about what keeps happening."""

from pounce.events.seldom import Seldom


def test_one_at_once_and_the_next_after_its_time() -> None:
    now = 5.0
    seldom = Seldom(60.0, lambda: now)
    assert [seldom.is_due(), seldom.is_due()] == [True, False]
    now = 64.9
    assert not seldom.is_due()
    now = 65.0
    assert [seldom.is_due(), seldom.is_due()] == [True, False]
