"""`python -m tests.attack [ATTACK ...]`: all attacks in full, or those, and their figures."""

import sys
import tempfile
from pathlib import Path

from tests.attack import prepare, scene
from tests.attack.attacks import ATTACKS

FIGURES = Path(__file__).parents[2] / "build" / "attack.json"


def main(names: list[str]) -> int:
    known = {attack.name: attack for attack in ATTACKS}
    if unknown := set(names) - set(known):
        print(f"no such attack: {', '.join(unknown)}; there are {', '.join(known)}")  # noqa: T201
        return 2
    if status := prepare.main():
        return status
    outcomes, failed = [], []
    for name in names or known:
        try:
            with tempfile.TemporaryDirectory() as directory:
                outcome = scene.perform(known[name], known[name].amount, Path(directory), rounds=2)
        except (AssertionError, TimeoutError) as error:
            print(f"{name} failed: {error}", flush=True)  # noqa: T201
            failed.append(name)
        else:
            print(f"{name}: {outcome.attackers_saw}", flush=True)  # noqa: T201
            outcomes.append(outcome)
    FIGURES.parent.mkdir(exist_ok=True)
    FIGURES.write_text(scene.to_json(outcomes))
    print(f"{scene.table(outcomes)}\n{FIGURES}")  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
