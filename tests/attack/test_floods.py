"""Every flood, for a second; `python -m tests.attack` has them in full, and judges the p99.

Beside other tests nobody can say how long a request should take. That it is answered, by a worker
that nobody takes for a hung one, is so at any speed.
"""

from pathlib import Path

import pytest

from tests.attack.floods import LISTENERS, Outcome, endure, floods_of


@pytest.mark.parametrize(
    ("listener", "name", "way"),
    [(listener, name, way) for listener in LISTENERS.values() for name, way in floods_of(listener)],
)
def test_others_are_served(
    flooded: list[Outcome], listener: str, name: str, way: str, tmp_path: Path
) -> None:
    outcome = endure(tmp_path, listener, name, way, 1.0)
    flooded.append(outcome)
    assert outcome.trouble == ""
