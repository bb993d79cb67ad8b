"""What a run of pytest leaves for the program that started it: which tests failed or were skipped.

A plugin: `pytest -p tests.outcomes`. The file named by $POUNCE_TEST_OUTCOMES gets it as JSON.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

VARIABLE = "POUNCE_TEST_OUTCOMES"


@dataclass(frozen=True)
class Outcomes:
    """Node ids of the tests that *failed*; tests that were *skipped*, each with the reason.

    A test that is expected to fail is told among the skipped.
    """

    failed: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def write(self, path: Path) -> None:
        """Leave it in a file."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "Outcomes":
        """What `write` has left; nothing where pytest itself has failed before."""
        return cls(**json.loads(path.read_text())) if path.exists() else cls()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Write the file, if one is named."""
    path = os.environ.get(VARIABLE)
    if path:
        Outcomes(
            failed=[report.nodeid for report in _reports(terminalreporter, "failed", "error")],
            skipped=[
                f"{report.nodeid}: {_reason(report)}"
                for report in _reports(terminalreporter, "skipped", "xfailed")
            ],
        ).write(Path(path))


def _reports(terminalreporter: Any, *kinds: str) -> Iterator[Any]:
    for kind in kinds:
        yield from terminalreporter.stats.get(kind, [])


def _reason(report: Any) -> str:
    if hasattr(report, "wasxfail"):
        return f"expected to fail: {report.wasxfail}"
    # Of a skipped test, longrepr is a file, a line and the reason.
    return str(report.longrepr[2]).removeprefix("Skipped: ")
