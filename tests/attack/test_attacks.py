"""Every attack, on a small scale; `python -m tests.attack` has the large one."""

from pathlib import Path

import pytest

from tests.attack.attacks import ATTACKS, Attack
from tests.attack.scene import Outcome, perform


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_the_honest_are_served(attack: Attack, outcomes: list[Outcome], tmp_path: Path) -> None:
    outcomes.append(perform(attack, attack.short, tmp_path))
