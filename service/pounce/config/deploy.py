"""The options of a deploy: what happens before a new generation serves."""

from dataclasses import dataclass

from pounce.config.commands import CommandLines
from pounce.config.options import option, settle


@dataclass(frozen=True, slots=True)
class Deploy:
    """The ``[deploy]`` table of the file."""

    before: tuple[str, ...] = option(
        "deploy",
        CommandLines(),
        (),
        "commands that are run before new code is started, such as a database's migration",
        details="They run one after the other, once for each start, restart and reload, also for a "
        "start after a crash: each must be able to run again. If one fails, or all together take "
        "longer than startup_timeout, so does the start or the reload.",
    )

    def __post_init__(self) -> None:
        settle(self)
