"""The choice of a worker's event loop."""

import asyncio
import logging

import pytest
import uvloop

from pounce.application import loops
from pounce.config.service import LoopName, ServerConfig
from pounce.errors import ConfigError
from pounce.workers import check


@pytest.mark.parametrize(
    ("name", "kind"),
    [("auto", uvloop.Loop), ("uvloop", uvloop.Loop), ("asyncio", asyncio.SelectorEventLoop)],
)
def test_the_loop_is_the_one_that_is_named(name: LoopName, kind: type) -> None:
    loop = loops.new_event_loop(name)
    loop.close()
    assert isinstance(loop, kind)


def test_a_loop_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(loops._LOOPS, "uvloop")
    check(ServerConfig(loop="auto"))
    with pytest.raises(ConfigError, match="loop: uvloop is not installed"):
        check(ServerConfig(loop="uvloop"))


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
@pytest.mark.parametrize("disabled", [False, True])
def test_an_error_in_a_callback_is_told(
    name: LoopName, *, disabled: bool, caplog: pytest.LogCaptureFixture
) -> None:
    loop = loops.new_event_loop(name)
    public = logging.getLogger("asyncio")
    public.disabled = disabled
    loop.call_soon(lambda: 1 / 0)
    try:
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        public.disabled = False
        loop.close()
    [record] = caplog.records
    assert record.name == ("pounce.worker" if disabled else "asyncio")
    assert "ZeroDivisionError" in caplog.text
