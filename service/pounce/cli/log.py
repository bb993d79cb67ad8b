"""``pounce log``: what the journal has of a service."""

import os
from datetime import datetime

import click

from pounce.cli.completion import complete_name
from pounce.systemd.moments import FORMS, parse
from pounce.systemd.reader import Entry, Query, entries

_LEVELS = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
_COLOURS = {"err": "red", "crit": "red", "alert": "red", "emerg": "red", "warning": "yellow"}


def _moment(_ctx: click.Context, _option: click.Parameter, value: str | None) -> datetime | None:
    try:
        return None if value is None else parse(value, datetime.now().astimezone())
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a time; write it as {FORMS}.") from None


def _level(_ctx: click.Context, _option: click.Parameter, value: str | None) -> int | None:
    """The number of a level, which may be given by its name, too."""
    if value is None:
        return None
    names = {name: number for number, name in enumerate(_LEVELS)}
    numbers = {str(number): number for number in names.values()}
    if value not in names | numbers:
        raise click.BadParameter(f"{value!r} is neither one of {', '.join(names)} nor 0 to 7.")
    return (names | numbers)[value]


@click.command()
@click.argument("name", shell_complete=complete_name)
@click.option("--worker", metavar="N", help="Only entries of the worker in this slot.")
@click.option("--generation", type=click.IntRange(1), help="Only entries of this generation.")
@click.option(
    "--priority",
    metavar="LEVEL",
    callback=_level,
    help="Only entries as severe as this, or more so.",
)
@click.option(
    "--since", metavar="TIME", callback=_moment, help=f"Only entries from then on: {FORMS}."
)
@click.option("--follow", is_flag=True, help="Go on with new entries until interrupted.")
def log(
    name: str,
    worker: str | None,
    generation: int | None,
    priority: int | None,
    since: datetime | None,
    follow: bool,
) -> None:
    """Show what the journal has of the service NAME."""
    query = Query(f"pounce@{name}.service", worker, generation, priority, since)
    found = False
    try:
        for entry in entries(query, follow=follow):
            found = True
            level = _LEVELS[int(entry.get("PRIORITY", 6))]
            click.echo(click.style(_line(entry), fg=_COLOURS.get(level)))
    except KeyboardInterrupt:
        return
    if not found:
        click.echo(f"The journal has no such entries of {query.unit}.", err=True)
        if os.geteuid() != 0:
            click.echo("It shows them to root and the group systemd-journal alone.", err=True)


def _line(entry: Entry) -> str:
    when = entry["__REALTIME_TIMESTAMP"].astimezone()
    who = f"{entry.get('SYSLOG_IDENTIFIER', '-')}[{entry.get('_PID', '-')}]"
    if "POUNCE_WORKER" in entry:
        who += f" worker {entry['POUNCE_WORKER']}"
    if "POUNCE_GENERATION" in entry:
        who += f" generation {entry['POUNCE_GENERATION']}"
    message = entry.get("MESSAGE", "")
    text = message.decode(errors="replace") if isinstance(message, bytes) else str(message)
    return f"{when:%b %d %H:%M:%S} {who}: " + text.replace("\n", "\n    ")
