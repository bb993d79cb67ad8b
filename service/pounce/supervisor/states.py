"""The state machines of a service, a generation and a worker, as tables without I/O.

Each table maps (state, input) to (next state, action). Actions are names only: the supervisor
has one method for each. Every state answers every input, because inputs cross: a worker may
report ready in the same turn of the loop in which it is told to drain.
"""

from enum import Enum, auto
from typing import Final


class WorkerState(Enum):
    """One worker, as its supervisor sees it."""

    STARTING = auto()  # spawned; importing the application, running the lifespan's startup
    READY = auto()  # serving, or waiting for the rest of its generation
    DRAINING = auto()  # told to finish what it has and end
    EXPIRED = auto()  # its time to drain is over; its handlers were told, and have a while to end
    STOPPING = auto()  # told to end now; its slot stays empty
    ENDING = auto()  # it has done its work, and only threads of the application may keep it
    CONDEMNED = auto()  # failed, hung or slow to start; it has to end, its slot is filled again
    GONE = auto()  # ended and reaped, or an abandoned thread


class WorkerInput(Enum):
    """What can happen to a worker."""

    READY = auto()  # it reports ready
    FAILED = auto()  # it reports why it will end
    DONE = auto()  # it reports that it has done its work, and its loop turns no more
    EXITED = auto()  # its process or thread has ended
    SILENT = auto()  # no heartbeat for worker_timeout
    OVERDUE = auto()  # its deadline has passed (start, drain or kill)
    DRAIN = auto()  # the supervisor wants it drained
    STOP = auto()  # the supervisor wants it gone


class WorkerAction(Enum):
    """What the supervisor does about a worker."""

    NOTHING = auto()
    WELCOME = auto()  # count it in; let it serve if its generation does
    NOTE_FAILURE = auto()  # remember the reason it gave
    AWAIT_END = auto()  # it said why it will end: give it a moment
    AWAIT_THREADS = auto()  # it ends: give it time to wait for the application's threads
    DRAIN = auto()  # send the drain command, set the deadline
    EXPIRE = auto()  # ask it to end, with the time that its generation's handlers get for that
    TERMINATE = auto()  # ask it to end at once, set the short deadline
    CONDEMN = auto()  # record where it hangs, kill it
    KILL = auto()  # end a process by force, abandon a thread
    REPLACE = auto()  # it ended unasked: its generation decides what follows
    RETIRE = auto()  # it ended as told


_W, _I, _A = WorkerState, WorkerInput, WorkerAction

WORKER_TABLE: Final = {
    (_W.STARTING, _I.READY): (_W.READY, _A.WELCOME),
    # What it says is final, but threads of the application may keep its process from ending.
    (_W.STARTING, _I.FAILED): (_W.CONDEMNED, _A.AWAIT_END),
    (_W.STARTING, _I.EXITED): (_W.GONE, _A.REPLACE),
    (_W.STARTING, _I.DONE): (_W.STARTING, _A.NOTHING),
    # An import may block the loop for as long as startup_timeout allows.
    (_W.STARTING, _I.SILENT): (_W.STARTING, _A.NOTHING),
    (_W.STARTING, _I.OVERDUE): (_W.CONDEMNED, _A.CONDEMN),
    # It holds no connection yet, so there is nothing to drain.
    (_W.STARTING, _I.DRAIN): (_W.STOPPING, _A.TERMINATE),
    (_W.STARTING, _I.STOP): (_W.STOPPING, _A.TERMINATE),
    (_W.READY, _I.READY): (_W.READY, _A.NOTHING),
    (_W.READY, _I.FAILED): (_W.READY, _A.NOTE_FAILURE),
    (_W.READY, _I.EXITED): (_W.GONE, _A.REPLACE),
    # Nobody has told it to end: a respawn follows when it has.
    (_W.READY, _I.DONE): (_W.READY, _A.NOTHING),
    (_W.READY, _I.SILENT): (_W.CONDEMNED, _A.CONDEMN),
    (_W.READY, _I.OVERDUE): (_W.READY, _A.NOTHING),
    (_W.READY, _I.DRAIN): (_W.DRAINING, _A.DRAIN),
    (_W.READY, _I.STOP): (_W.STOPPING, _A.TERMINATE),
    (_W.DRAINING, _I.READY): (_W.DRAINING, _A.NOTHING),
    (_W.DRAINING, _I.FAILED): (_W.DRAINING, _A.NOTE_FAILURE),
    (_W.DRAINING, _I.EXITED): (_W.GONE, _A.RETIRE),
    (_W.DRAINING, _I.DONE): (_W.ENDING, _A.AWAIT_THREADS),
    (_W.DRAINING, _I.SILENT): (_W.STOPPING, _A.CONDEMN),
    (_W.DRAINING, _I.OVERDUE): (_W.EXPIRED, _A.EXPIRE),
    (_W.DRAINING, _I.DRAIN): (_W.DRAINING, _A.NOTHING),
    (_W.DRAINING, _I.STOP): (_W.STOPPING, _A.TERMINATE),
    (_W.EXPIRED, _I.READY): (_W.EXPIRED, _A.NOTHING),
    (_W.EXPIRED, _I.FAILED): (_W.EXPIRED, _A.NOTE_FAILURE),
    (_W.EXPIRED, _I.EXITED): (_W.GONE, _A.RETIRE),
    (_W.EXPIRED, _I.DONE): (_W.ENDING, _A.AWAIT_THREADS),
    (_W.EXPIRED, _I.SILENT): (_W.STOPPING, _A.CONDEMN),
    (_W.EXPIRED, _I.OVERDUE): (_W.STOPPING, _A.KILL),
    (_W.EXPIRED, _I.DRAIN): (_W.EXPIRED, _A.NOTHING),
    (_W.EXPIRED, _I.STOP): (_W.STOPPING, _A.TERMINATE),
    (_W.STOPPING, _I.READY): (_W.STOPPING, _A.NOTHING),
    (_W.STOPPING, _I.FAILED): (_W.STOPPING, _A.NOTE_FAILURE),
    (_W.STOPPING, _I.EXITED): (_W.GONE, _A.RETIRE),
    (_W.STOPPING, _I.DONE): (_W.ENDING, _A.AWAIT_THREADS),
    (_W.STOPPING, _I.SILENT): (_W.STOPPING, _A.NOTHING),
    (_W.STOPPING, _I.OVERDUE): (_W.STOPPING, _A.KILL),
    (_W.STOPPING, _I.DRAIN): (_W.STOPPING, _A.NOTHING),
    (_W.STOPPING, _I.STOP): (_W.STOPPING, _A.KILL),
    # The loop of a worker that ends has stopped for good.
    **{(_W.ENDING, each): (_W.ENDING, _A.NOTHING) for each in WorkerInput},
    (_W.ENDING, _I.FAILED): (_W.ENDING, _A.NOTE_FAILURE),
    (_W.ENDING, _I.EXITED): (_W.GONE, _A.RETIRE),
    (_W.ENDING, _I.OVERDUE): (_W.ENDING, _A.KILL),
    (_W.ENDING, _I.STOP): (_W.ENDING, _A.KILL),
    (_W.CONDEMNED, _I.READY): (_W.CONDEMNED, _A.NOTHING),
    (_W.CONDEMNED, _I.FAILED): (_W.CONDEMNED, _A.NOTE_FAILURE),
    (_W.CONDEMNED, _I.EXITED): (_W.GONE, _A.REPLACE),
    (_W.CONDEMNED, _I.DONE): (_W.CONDEMNED, _A.NOTHING),
    (_W.CONDEMNED, _I.SILENT): (_W.CONDEMNED, _A.NOTHING),
    (_W.CONDEMNED, _I.OVERDUE): (_W.CONDEMNED, _A.KILL),
    (_W.CONDEMNED, _I.DRAIN): (_W.STOPPING, _A.NOTHING),
    (_W.CONDEMNED, _I.STOP): (_W.STOPPING, _A.KILL),
    # A report may still sit in the channel of a worker that is already reaped.
    **{(_W.GONE, each): (_W.GONE, _A.NOTHING) for each in WorkerInput},
}


class GenerationState(Enum):
    """The workers of one version of the code."""

    PREPARING = auto()  # the commands of `[deploy] before` run
    STARTING = auto()  # not all of its workers are ready
    SERVING = auto()  # the current generation
    DRAINING = auto()  # superseded, or the service stops
    FAILED = auto()  # a command failed, or a worker did not become ready; the rest is torn down
    RETIRED = auto()  # no worker left


class GenerationInput(Enum):
    """What can happen to a generation."""

    PREPARED = auto()  # all commands have ended well, or there are none
    UNPREPARED = auto()  # a command has failed, or was ended
    COMPLETE = auto()  # every slot has a ready worker
    WORKER_LOST = auto()  # a worker ended unasked
    DRAIN = auto()  # the supervisor wants it drained
    EMPTY = auto()  # its last worker is gone


class GenerationAction(Enum):
    """What the supervisor does about a generation."""

    NOTHING = auto()
    LOAD = auto()  # start its workers, which import the application
    SWITCH = auto()  # it serves from now on
    FAIL = auto()  # tear it down
    RESPAWN = auto()  # fill the lost worker's slot again
    DRAIN = auto()  # drain its workers, end its command
    RETIRE = auto()  # forget it


_G, _J, _B = GenerationState, GenerationInput, GenerationAction

GENERATION_TABLE: Final = {
    # Commands are run once, before anything else.
    **{
        (state, each): (state, _B.NOTHING)
        for state in GenerationState
        for each in (_J.PREPARED, _J.UNPREPARED)
    },
    (_G.PREPARING, _J.PREPARED): (_G.STARTING, _B.LOAD),
    (_G.PREPARING, _J.UNPREPARED): (_G.FAILED, _B.FAIL),
    (_G.PREPARING, _J.COMPLETE): (_G.PREPARING, _B.NOTHING),
    (_G.PREPARING, _J.WORKER_LOST): (_G.PREPARING, _B.NOTHING),
    (_G.PREPARING, _J.DRAIN): (_G.DRAINING, _B.DRAIN),
    (_G.PREPARING, _J.EMPTY): (_G.PREPARING, _B.NOTHING),
    (_G.STARTING, _J.COMPLETE): (_G.SERVING, _B.SWITCH),
    (_G.STARTING, _J.WORKER_LOST): (_G.FAILED, _B.FAIL),
    (_G.STARTING, _J.DRAIN): (_G.DRAINING, _B.DRAIN),
    (_G.STARTING, _J.EMPTY): (_G.STARTING, _B.NOTHING),
    # A respawned worker completes a generation that serves already.
    (_G.SERVING, _J.COMPLETE): (_G.SERVING, _B.NOTHING),
    (_G.SERVING, _J.WORKER_LOST): (_G.SERVING, _B.RESPAWN),
    (_G.SERVING, _J.DRAIN): (_G.DRAINING, _B.DRAIN),
    # Its slots are being filled again, or the budget ends the service.
    (_G.SERVING, _J.EMPTY): (_G.SERVING, _B.NOTHING),
    (_G.DRAINING, _J.COMPLETE): (_G.DRAINING, _B.NOTHING),
    (_G.DRAINING, _J.WORKER_LOST): (_G.DRAINING, _B.NOTHING),
    (_G.DRAINING, _J.DRAIN): (_G.DRAINING, _B.NOTHING),
    (_G.DRAINING, _J.EMPTY): (_G.RETIRED, _B.RETIRE),
    (_G.FAILED, _J.COMPLETE): (_G.FAILED, _B.NOTHING),
    (_G.FAILED, _J.WORKER_LOST): (_G.FAILED, _B.NOTHING),
    (_G.FAILED, _J.DRAIN): (_G.FAILED, _B.NOTHING),
    (_G.FAILED, _J.EMPTY): (_G.RETIRED, _B.RETIRE),
    **{(_G.RETIRED, each): (_G.RETIRED, _B.NOTHING) for each in GenerationInput},
}


class ServiceState(Enum):
    """The service as a whole."""

    STARTING = auto()  # the first generation is on its way
    SERVING = auto()
    RELOADING = auto()  # the current generation serves while the next one starts
    RESTARTING = auto()  # the same, but the old workers get less time afterwards
    STOPPING = auto()  # draining, to end; no signal has asked for that
    TERMINATING = auto()  # the same, after a signal
    FORCED = auto()  # a second signal came: no more waiting
    STOPPED = auto()


class ServiceInput(Enum):
    """What can happen to the service."""

    GENERATION_READY = auto()
    GENERATION_FAILED = auto()
    EXHAUSTED = auto()  # no worker lives and the restart budget allows none
    RELOAD = auto()
    RESTART = auto()
    IDLE = auto()  # nobody has been connected for idle_exit
    SHUTDOWN = auto()  # a caller wants the service stopped
    TERMINATE = auto()  # a signal wants the service stopped
    EMPTY = auto()  # the last generation is retired


class ServiceAction(Enum):
    """What the supervisor does about the service."""

    NOTHING = auto()
    OPEN = auto()  # the first generation serves
    FAIL = auto()  # stop, and say why at the end
    BEGIN_RELOAD = auto()
    QUEUE_RELOAD = auto()  # one more reload after this one
    QUEUE_RESTART = auto()  # one more restart after this one
    SKIP_RESTART = auto()  # the workers are being replaced already
    END_RELOAD = auto()  # drain the old generation
    END_RESTART = auto()  # drain the old generation, as in a stop
    GIVE_UP_RELOAD = auto()  # the old generation goes on
    REST = auto()  # the same as a stop, but the next connection starts the service
    STOP = auto()  # drain every generation
    FORCE = auto()  # stop every worker now
    FINISH = auto()  # leave the loop


_S, _K, _C = ServiceState, ServiceInput, ServiceAction

SERVICE_TABLE: Final = {
    (_S.STARTING, _K.GENERATION_READY): (_S.SERVING, _C.OPEN),
    (_S.STARTING, _K.GENERATION_FAILED): (_S.STOPPING, _C.FAIL),
    (_S.STARTING, _K.EXHAUSTED): (_S.STOPPING, _C.FAIL),
    (_S.STARTING, _K.RELOAD): (_S.STARTING, _C.QUEUE_RELOAD),
    # The code may have been edited after a worker has imported it.
    (_S.STARTING, _K.RESTART): (_S.STARTING, _C.QUEUE_RESTART),
    (_S.STARTING, _K.IDLE): (_S.STARTING, _C.NOTHING),
    (_S.STARTING, _K.SHUTDOWN): (_S.STOPPING, _C.STOP),
    (_S.STARTING, _K.TERMINATE): (_S.TERMINATING, _C.STOP),
    (_S.STARTING, _K.EMPTY): (_S.STARTING, _C.NOTHING),
    (_S.SERVING, _K.GENERATION_READY): (_S.SERVING, _C.NOTHING),
    (_S.SERVING, _K.GENERATION_FAILED): (_S.SERVING, _C.NOTHING),
    (_S.SERVING, _K.EXHAUSTED): (_S.STOPPING, _C.FAIL),
    (_S.SERVING, _K.RELOAD): (_S.RELOADING, _C.BEGIN_RELOAD),
    (_S.SERVING, _K.RESTART): (_S.RESTARTING, _C.BEGIN_RELOAD),
    (_S.SERVING, _K.IDLE): (_S.STOPPING, _C.REST),
    (_S.SERVING, _K.SHUTDOWN): (_S.STOPPING, _C.STOP),
    (_S.SERVING, _K.TERMINATE): (_S.TERMINATING, _C.STOP),
    (_S.SERVING, _K.EMPTY): (_S.SERVING, _C.NOTHING),
    (_S.RELOADING, _K.GENERATION_READY): (_S.SERVING, _C.END_RELOAD),
    (_S.RELOADING, _K.GENERATION_FAILED): (_S.SERVING, _C.GIVE_UP_RELOAD),
    # The new generation may yet serve; its outcome decides.
    (_S.RELOADING, _K.EXHAUSTED): (_S.RELOADING, _C.NOTHING),
    (_S.RELOADING, _K.RELOAD): (_S.RELOADING, _C.QUEUE_RELOAD),
    (_S.RELOADING, _K.RESTART): (_S.RELOADING, _C.SKIP_RESTART),
    (_S.RELOADING, _K.IDLE): (_S.RELOADING, _C.NOTHING),
    (_S.RELOADING, _K.SHUTDOWN): (_S.STOPPING, _C.STOP),
    (_S.RELOADING, _K.TERMINATE): (_S.TERMINATING, _C.STOP),
    (_S.RELOADING, _K.EMPTY): (_S.RELOADING, _C.NOTHING),
    (_S.RESTARTING, _K.GENERATION_READY): (_S.SERVING, _C.END_RESTART),
    (_S.RESTARTING, _K.GENERATION_FAILED): (_S.SERVING, _C.GIVE_UP_RELOAD),
    (_S.RESTARTING, _K.EXHAUSTED): (_S.RESTARTING, _C.NOTHING),
    (_S.RESTARTING, _K.RELOAD): (_S.RESTARTING, _C.QUEUE_RELOAD),
    (_S.RESTARTING, _K.RESTART): (_S.RESTARTING, _C.QUEUE_RESTART),
    (_S.RESTARTING, _K.IDLE): (_S.RESTARTING, _C.NOTHING),
    (_S.RESTARTING, _K.SHUTDOWN): (_S.STOPPING, _C.STOP),
    (_S.RESTARTING, _K.TERMINATE): (_S.TERMINATING, _C.STOP),
    (_S.RESTARTING, _K.EMPTY): (_S.RESTARTING, _C.NOTHING),
    **{
        (state, each): (state, _C.NOTHING)
        for state in (_S.STOPPING, _S.TERMINATING, _S.FORCED)
        for each in ServiceInput
    },
    # Systemd may send the first signal after a program has called shutdown(): it is no second one.
    (_S.STOPPING, _K.TERMINATE): (_S.TERMINATING, _C.NOTHING),
    (_S.STOPPING, _K.EMPTY): (_S.STOPPED, _C.FINISH),
    (_S.TERMINATING, _K.TERMINATE): (_S.FORCED, _C.FORCE),
    (_S.TERMINATING, _K.EMPTY): (_S.STOPPED, _C.FINISH),
    (_S.FORCED, _K.TERMINATE): (_S.FORCED, _C.FORCE),
    (_S.FORCED, _K.EMPTY): (_S.STOPPED, _C.FINISH),
    **{(_S.STOPPED, each): (_S.STOPPED, _C.NOTHING) for each in ServiceInput},
}
