"""``pounce status``: every worker of a running service."""

import json
from pathlib import Path
from typing import Any

import click

from pounce.cli import control

_COLUMNS = (
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
    """Show a service's generations and workers; ages in seconds."""
    answer = control.call(name, control_socket, "Status")
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    rows = [_COLUMNS, *(_row(*each) for each in _workers(answer))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    for row in rows:
        cells = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells))


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
