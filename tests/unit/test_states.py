"""The state tables: complete, connected, and right where it matters most."""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from pounce import supervisor
from pounce.supervisor.states import (
    GENERATION_TABLE,
    SERVICE_TABLE,
    WORKER_TABLE,
    GenerationAction,
    GenerationInput,
    GenerationState,
    ServiceAction,
    ServiceInput,
    ServiceState,
    WorkerAction,
    WorkerInput,
    WorkerState,
)

Table = Mapping[tuple[Any, Any], tuple[Any, Any]]

MACHINES = [
    pytest.param(WORKER_TABLE, WorkerState, WorkerInput, WorkerAction, id="worker"),
    pytest.param(
        GENERATION_TABLE, GenerationState, GenerationInput, GenerationAction, id="generation"
    ),
    pytest.param(SERVICE_TABLE, ServiceState, ServiceInput, ServiceAction, id="service"),
]


@pytest.mark.parametrize(("table", "states", "inputs", "actions"), MACHINES)
def test_every_state_answers_every_input(
    table: Table, states: type[Enum], inputs: type[Enum], actions: type[Enum]
) -> None:
    assert set(table) == {(state, each) for state in states for each in inputs}
    assert {state for state, _ in table.values()} <= set(states)
    assert {action for _, action in table.values()} == set(actions)


@pytest.mark.parametrize(("table", "states", "inputs", "actions"), MACHINES)
def test_every_state_is_reachable_from_the_first(
    table: Table, states: type[Enum], inputs: type[Enum], actions: type[Enum]
) -> None:
    reached = {next(iter(states))}
    while more := {table[state, each][0] for state in reached for each in inputs} - reached:
        reached |= more
    assert reached == set(states)


@pytest.mark.parametrize(("table", "states", "inputs", "actions"), MACHINES)
def test_the_last_state_is_for_ever_and_can_be_reached_from_everywhere(
    table: Table, states: type[Enum], inputs: type[Enum], actions: type[Enum]
) -> None:
    last = list(states)[-1]
    nothing = next(iter(actions))
    assert {table[last, each] for each in inputs} == {(last, nothing)}
    leading = {last}
    while more := {state for (state, _), (to, _) in table.items() if to in leading} - leading:
        leading |= more
    assert leading == set(states)


@pytest.mark.parametrize(
    ("action", "module"),
    [
        *((action, "crew.py") for action in WorkerAction),
        *((action, "generations.py") for action in GenerationAction),
        *((action, "service.py") for action in ServiceAction),
    ],
    ids=str,
)
def test_every_action_is_carried_out_somewhere(action: Enum, module: str) -> None:
    source = Path(supervisor.__file__).with_name(module).read_text()
    assert str(action) in source


W, I, A = WorkerState, WorkerInput, WorkerAction  # noqa: E741 - as in the module


@pytest.mark.parametrize(
    ("state", "what", "expected"),
    [
        pytest.param(W.STARTING, I.READY, (W.READY, A.WELCOME), id="a start succeeds"),
        pytest.param(W.STARTING, I.EXITED, (W.GONE, A.REPLACE), id="a start fails"),
        pytest.param(W.STARTING, I.SILENT, (W.STARTING, A.NOTHING), id="an import blocks"),
        pytest.param(W.STARTING, I.OVERDUE, (W.CONDEMNED, A.CONDEMN), id="a start takes too long"),
        pytest.param(W.STARTING, I.DRAIN, (W.STOPPING, A.TERMINATE), id="nothing to drain yet"),
        pytest.param(W.READY, I.EXITED, (W.GONE, A.REPLACE), id="a crash"),
        pytest.param(W.READY, I.SILENT, (W.CONDEMNED, A.CONDEMN), id="a hang"),
        pytest.param(W.READY, I.DRAIN, (W.DRAINING, A.DRAIN), id="a drain begins"),
        pytest.param(W.DRAINING, I.EXITED, (W.GONE, A.RETIRE), id="a drain ends"),
        pytest.param(W.DRAINING, I.OVERDUE, (W.EXPIRED, A.EXPIRE), id="a drain overruns"),
        pytest.param(W.EXPIRED, I.STOP, (W.STOPPING, A.TERMINATE), id="cut short after all"),
        pytest.param(W.EXPIRED, I.OVERDUE, (W.STOPPING, A.KILL), id="its handlers do not end"),
        pytest.param(W.DRAINING, I.SILENT, (W.STOPPING, A.CONDEMN), id="a hang while draining"),
        pytest.param(W.DRAINING, I.READY, (W.DRAINING, A.NOTHING), id="ready crosses drain"),
        pytest.param(W.DRAINING, I.DONE, (W.ENDING, A.AWAIT_THREADS), id="its work is done"),
        pytest.param(W.STOPPING, I.DONE, (W.ENDING, A.AWAIT_THREADS), id="done after all"),
        pytest.param(W.ENDING, I.SILENT, (W.ENDING, A.NOTHING), id="its loop turns no more"),
        pytest.param(W.ENDING, I.EXITED, (W.GONE, A.RETIRE), id="its threads have ended"),
        pytest.param(W.ENDING, I.OVERDUE, (W.ENDING, A.KILL), id="a callback does not return"),
        pytest.param(W.STOPPING, I.OVERDUE, (W.STOPPING, A.KILL), id="it ignores the request"),
        pytest.param(W.STOPPING, I.STOP, (W.STOPPING, A.KILL), id="asked twice"),
        pytest.param(W.CONDEMNED, I.OVERDUE, (W.CONDEMNED, A.KILL), id="stacks taken"),
        pytest.param(W.CONDEMNED, I.EXITED, (W.GONE, A.REPLACE), id="a hung one is replaced"),
        pytest.param(W.CONDEMNED, I.DRAIN, (W.STOPPING, A.NOTHING), id="not replaced in a stop"),
    ],
)
def test_worker(
    state: WorkerState, what: WorkerInput, expected: tuple[WorkerState, WorkerAction]
) -> None:
    assert WORKER_TABLE[state, what] == expected


G, J, B = GenerationState, GenerationInput, GenerationAction


@pytest.mark.parametrize(
    ("state", "what", "expected"),
    [
        pytest.param(G.PREPARING, J.PREPARED, (G.STARTING, B.LOAD), id="commands have ended"),
        pytest.param(G.PREPARING, J.UNPREPARED, (G.FAILED, B.FAIL), id="a command has failed"),
        pytest.param(G.PREPARING, J.DRAIN, (G.DRAINING, B.DRAIN), id="a stop during a command"),
        pytest.param(G.DRAINING, J.UNPREPARED, (G.DRAINING, B.NOTHING), id="the command has ended"),
        pytest.param(G.STARTING, J.COMPLETE, (G.SERVING, B.SWITCH), id="all are ready"),
        pytest.param(G.STARTING, J.WORKER_LOST, (G.FAILED, B.FAIL), id="one fails, all fail"),
        pytest.param(G.SERVING, J.WORKER_LOST, (G.SERVING, B.RESPAWN), id="a crash is mended"),
        pytest.param(G.SERVING, J.COMPLETE, (G.SERVING, B.NOTHING), id="mended"),
        pytest.param(G.SERVING, J.EMPTY, (G.SERVING, B.NOTHING), id="respawns are on their way"),
        pytest.param(
            G.DRAINING, J.WORKER_LOST, (G.DRAINING, B.NOTHING), id="no respawn in a drain"
        ),
        pytest.param(G.DRAINING, J.EMPTY, (G.RETIRED, B.RETIRE), id="a drain ends"),
        pytest.param(G.FAILED, J.COMPLETE, (G.FAILED, B.NOTHING), id="ready too late"),
        pytest.param(G.FAILED, J.EMPTY, (G.RETIRED, B.RETIRE), id="torn down"),
    ],
)
def test_generation(
    state: GenerationState,
    what: GenerationInput,
    expected: tuple[GenerationState, GenerationAction],
) -> None:
    assert GENERATION_TABLE[state, what] == expected


S, K, C = ServiceState, ServiceInput, ServiceAction


@pytest.mark.parametrize(
    ("state", "what", "expected"),
    [
        pytest.param(S.STARTING, K.GENERATION_READY, (S.SERVING, C.OPEN), id="the start"),
        pytest.param(S.STARTING, K.GENERATION_FAILED, (S.STOPPING, C.FAIL), id="a failed start"),
        pytest.param(S.STARTING, K.RELOAD, (S.STARTING, C.QUEUE_RELOAD), id="an early reload"),
        pytest.param(S.SERVING, K.RELOAD, (S.RELOADING, C.BEGIN_RELOAD), id="a reload"),
        pytest.param(S.SERVING, K.IDLE, (S.STOPPING, C.REST), id="nobody is there"),
        pytest.param(S.RELOADING, K.IDLE, (S.RELOADING, C.NOTHING), id="but it has work to do"),
        pytest.param(S.SERVING, K.EXHAUSTED, (S.STOPPING, C.FAIL), id="no worker can live"),
        pytest.param(S.RELOADING, K.GENERATION_READY, (S.SERVING, C.END_RELOAD), id="it succeeds"),
        pytest.param(
            S.RELOADING, K.GENERATION_FAILED, (S.SERVING, C.GIVE_UP_RELOAD), id="it fails"
        ),
        pytest.param(S.RELOADING, K.RELOAD, (S.RELOADING, C.QUEUE_RELOAD), id="a second reload"),
        pytest.param(S.RELOADING, K.EXHAUSTED, (S.RELOADING, C.NOTHING), id="a reload may rescue"),
        pytest.param(S.RELOADING, K.RESTART, (S.RELOADING, C.SKIP_RESTART), id="one at a time"),
        pytest.param(S.RELOADING, K.TERMINATE, (S.TERMINATING, C.STOP), id="a stop in a reload"),
        pytest.param(
            S.RESTARTING, K.GENERATION_READY, (S.SERVING, C.END_RESTART), id="fresh workers"
        ),
        pytest.param(
            S.RESTARTING, K.GENERATION_FAILED, (S.SERVING, C.GIVE_UP_RELOAD), id="a broken edit"
        ),
        pytest.param(S.RESTARTING, K.RESTART, (S.RESTARTING, C.QUEUE_RESTART), id="one more edit"),
        pytest.param(S.TERMINATING, K.TERMINATE, (S.FORCED, C.FORCE), id="a second signal"),
        pytest.param(
            S.TERMINATING, K.SHUTDOWN, (S.TERMINATING, C.NOTHING), id="a call is no signal"
        ),
        pytest.param(S.STOPPING, K.SHUTDOWN, (S.STOPPING, C.NOTHING), id="a second call"),
        pytest.param(
            S.STOPPING, K.TERMINATE, (S.TERMINATING, C.NOTHING), id="the first signal after it"
        ),
        pytest.param(S.STOPPING, K.RELOAD, (S.STOPPING, C.NOTHING), id="a stop is final"),
        pytest.param(
            S.STOPPING, K.GENERATION_READY, (S.STOPPING, C.NOTHING), id="ready crosses stop"
        ),
        pytest.param(S.STOPPING, K.EMPTY, (S.STOPPED, C.FINISH), id="the end"),
        pytest.param(S.FORCED, K.EMPTY, (S.STOPPED, C.FINISH), id="the forced end"),
    ],
)
def test_service(
    state: ServiceState, what: ServiceInput, expected: tuple[ServiceState, ServiceAction]
) -> None:
    assert SERVICE_TABLE[state, what] == expected
