"""``pounce log``: what the journal has of a service."""

import os
from datetime import datetime

import click

from pounce.cli.completion import complete_name
from pounce.systemd.moments import FORMS, parse
from pounce.systemd.reader import Entry, Query, entries
from pounce.systemd.units import is_booted

_LEVELS = ("emerg", "alert", "crit", "err", "warning", "notice", "info", "debug")
_COLOURS = {**dict.fromkeys("0123", "red"), "4": "yellow"}


def _moment(_ctx: click.Context, _option: click.Parameter, value: str | None) -> datetime | None:
    try:
        return None if value is None else parse(value, datetime.now())
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
            click.echo(click.style(_line(entry), fg=_COLOURS.get(_field(entry, "PRIORITY"))))
    except KeyboardInterrupt:
        return
    if not found:
        click.echo(f"The journal has no such entries of {query.unit}.", err=True)
        if not is_booted():
            click.echo("systemd does not run this machine; look where its log goes.", err=True)
        elif os.geteuid() != 0:
            click.echo("It shows them to root and the group systemd-journal alone.", err=True)


def _line(entry: Entry) -> str:
    when = entry["__REALTIME_TIMESTAMP"].astimezone()
    who = f"{_field(entry, 'SYSLOG_IDENTIFIER') or '-'}[{_field(entry, '_PID') or '-'}]"
    for what, name in (("worker", "POUNCE_WORKER"), ("generation", "POUNCE_GENERATION")):
        if name in entry:
            who += f" {what} {_field(entry, name)}"
    message = _field(entry, "MESSAGE").replace("\n", "\n    ")
    return f"{when:%b %d %H:%M:%S} {who}: {message}"


def _field(entry: Entry, name: str) -> str:
    """A field as text that does a terminal no harm.

    Every process of a service may write what it likes: a field twice, or no text.
    """
    value = entry.get(name, "")
    last = value[-1] if isinstance(value, list) and value else value
    text = last.decode(errors="replace") if isinstance(last, bytes) else str(last)
    return "".join(
        each if each.isprintable() or each in "\n\t" else f"\\x{ord(each):02x}" for each in text
    )
