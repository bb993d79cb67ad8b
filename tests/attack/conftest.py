"""The figures of all attacks of a run, in a table at its end."""

import pytest

from tests.attack import floods
from tests.attack.scene import Outcome, table

OUTCOMES = pytest.StashKey[list[Outcome]]()
FLOODED = pytest.StashKey[list[floods.Outcome]]()


@pytest.fixture
def outcomes(request: pytest.FixtureRequest) -> list[Outcome]:
    return request.config.stash.setdefault(OUTCOMES, [])


@pytest.fixture
def flooded(request: pytest.FixtureRequest) -> list[floods.Outcome]:
    return request.config.stash.setdefault(FLOODED, [])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if found := config.stash.get(OUTCOMES, []):
        terminalreporter.section("what honest clients saw of each attack")
        terminalreporter.write_line(table(found))
    if flooded := config.stash.get(FLOODED, []):
        terminalreporter.section("what others noticed of each flood")
        terminalreporter.write_line(floods.table(flooded))
