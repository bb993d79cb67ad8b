"""`python -m tests.attack [NAME ...]`: all attacks and floods, or those, in full; their figures."""

import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.attack import floods, prepare, scene
from tests.attack.attacks import ATTACKS, Attack
from tests.attack.blaster import FLOODS

FIGURES = Path(__file__).parents[2] / "build"
SECONDS = 10.0
"""How long each flood lasts."""


def main(names: list[str]) -> int:
    known = {attack.name: attack for attack in ATTACKS}
    if unknown := set(names) - set(known) - set(FLOODS):
        print(f"no such attack: {', '.join(unknown)}; there are {', '.join([*known, *FLOODS])}")  # noqa: T201
        return 2
    if status := prepare.main():
        return status
    FIGURES.mkdir(exist_ok=True)
    wanted = set(names) or {*known, *FLOODS}
    failed = _attack([attack for name, attack in known.items() if name in wanted])
    return 1 if _flood(wanted) or failed else 0


def _attack(attacks: Iterable[Attack]) -> list[str]:
    """Carry out *attacks*, and tell; the names of those that had effects."""
    outcomes, failed = [], []
    for attack in attacks:
        try:
            with tempfile.TemporaryDirectory() as directory:
                outcome = scene.perform(attack, attack.amount, Path(directory), rounds=2)
        except (AssertionError, TimeoutError) as error:
            print(f"{attack.name} failed: {error}", flush=True)  # noqa: T201
            failed.append(attack.name)
        else:
            print(f"{attack.name}: {outcome.attackers_saw}", flush=True)  # noqa: T201
            outcomes.append(outcome)
    if outcomes:
        file = FIGURES / "attack.json"
        file.write_text(scene.to_json(outcomes))
        print(f"{scene.table(outcomes)}\n{file}")  # noqa: T201
    return failed


def _flood(wanted: set[str]) -> list[str]:
    """The same for the floods among *wanted*."""
    outcomes: list[floods.Outcome] = []
    for listener in floods.LISTENERS.values():
        mine = [each for each in floods.floods_of(listener) if each[0] in wanted]
        for name, way in mine:
            with tempfile.TemporaryDirectory() as directory:
                outcomes.append(floods.endure(Path(directory), listener, name, way, SECONDS))
            print(f"{name} ({way}): {outcomes[-1].verdict}", flush=True)  # noqa: T201
    if outcomes:
        file = FIGURES / "floods.json"
        file.write_text(json.dumps([floods.to_dict(each) for each in outcomes], indent=2))
        print(f"{floods.table(outcomes)}\n{file}")  # noqa: T201
    return [each.flood for each in outcomes if each.verdict != "ok"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
