"""``pounce status``: every worker of a running service, or every service of this machine."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from pounce.cli import control

_SERVICES = (
    "service",
    "state",
    "socket",
    "generation",
    "workers",
    "connections",
    "requests",
)
_READY = ("http", "ready")
_WORKERS = (
    "generation",
    "kind",
    "slot",
    "id",
    "state",
    "age",
    "connections",
    "busy",
    "requests",
    "heartbeat",
)


@click.command()
@control.service
@control.control
@click.option("as_json", "--json", is_flag=True, help="Print the answer as JSON.")
def status(name: str | None, control_socket: Path | None, as_json: bool) -> None:
    """Show a service's generations and workers, or all services.

    Ages are in seconds. Without a NAME, every service that runs or is configured in /etc/pounce is
    listed: its state, or that of its unit where it does not run or does not answer; the state of
    its socket unit, which starts it at the next request if it is active; and of what runs the
    generation that serves, its workers that are ready, the connections and requests of all.
    """
    if name is None and control_socket is None:
        _show_services(as_json)
        return
    answer = control.call(name, control_socket, "Status")
    if as_json:
        click.echo(json.dumps(answer, indent=2))
    else:
        _show(_WORKERS, [_row(*each) for each in _workers(answer)])
        _show_commands(answer)
        _show_idleness(answer)


def _show_commands(answer: dict[str, Any]) -> None:
    for each in answer["generations"]:
        # A service that runs since before an upgrade does not say it.
        if command := each.get("command"):
            click.echo(f"generation {each['number']} waits for the command {command!r}")


def _show_idleness(answer: dict[str, Any]) -> None:
    if answer.get("idle_exit"):
        from pounce.config.durations import spell

        idle, ends = answer["idle"], spell(answer["idle_exit"])
        click.echo(f"no connection for {idle:.0f} s; the service ends after {ends} of that")


def _show_services(as_json: bool) -> None:
    # Asking one service, which monitoring does often, needs none of that.
    from pounce.cli.instances import instances

    found = instances()
    if as_json:
        services = [{"name": each.name, "state": each.state} | each.details for each in found]
        click.echo(json.dumps({"services": services}, indent=2))
    elif found:
        _show(
            _SERVICES,
            [(each.name, each.state, each.socket or "-", *_load(each.answer)) for each in found],
        )
    else:
        click.echo("no service runs, and none is configured in /etc/pounce", err=True)


def _show(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    rows = [columns, *lines]
    widths = [max(len(row[column]) for row in rows) for column in range(len(columns))]
    for row in rows:
        cells = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells))


def _load(answer: dict[str, Any] | None) -> tuple[str, str, str, str]:
    """What is in the last columns for a service."""
    if not answer or not answer["generations"]:
        return ("-",) * 4
    serving = [each for each in answer["generations"] if each["state"] == "serving"]
    newest = (serving or answer["generations"])[-1]
    ready = [each for each in newest["workers"] if (each["kind"], each["state"]) == _READY]
    connections = sum(worker["connections"] for _, worker in _workers(answer))
    return (
        str(newest["number"]),
        f"{len(ready)}/{newest['size']}",
        str(connections),
        str(answer["requests"]),
    )


def _workers(answer: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    return [(each, worker) for each in answer["generations"] for worker in each["workers"]]


def _row(generation: dict[str, Any], worker: dict[str, Any]) -> tuple[str, ...]:
    heartbeat = worker["heartbeat_age"]
    return (
        str(generation["number"]),
        worker["kind"],
        str(worker["slot"]),
        str(worker["id"]),
        worker["state"],
        f"{worker['age']:.0f}",
        str(worker["connections"]),
        str(worker["busy"]),
        str(worker["requests"]),
        "-" if heartbeat is None else f"{heartbeat:.1f}",
    )
