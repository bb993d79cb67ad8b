"""The figures of all attacks of a run, in a table at its end."""

import pytest

from tests.attack.scene import Outcome, table

OUTCOMES = pytest.StashKey[list[Outcome]]()


@pytest.fixture
def outcomes(request: pytest.FixtureRequest) -> list[Outcome]:
    return request.config.stash.setdefault(OUTCOMES, [])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if found := config.stash.get(OUTCOMES, []):
        terminalreporter.section("what honest clients saw of each attack")
        terminalreporter.write_line(table(found))
