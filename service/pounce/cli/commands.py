"""The subcommands, and what finds them by their names."""

from importlib import import_module

import click

from pounce.version import __version__

COMMANDS = (
    "check",
    "config",
    "init",
    "log",
    "reload",
    "remove",
    "scale",
    "serve",
    "status",
    "stop-draining",
)


class Subcommands(click.Group):
    """Imports a subcommand's module when it is asked for: calling a service needs no server."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """The subcommands' names."""
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The subcommand *cmd_name*; None where there is none."""
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(import_module(f"pounce.cli.{name}"), name)
        # click would cut what it finds itself (Command.get_short_help_str).
        command.short_help = " ".join((command.help or "").partition("\n\n")[0].split())
        return command


@click.group(cls=Subcommands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="pounce %(version)s")
def pounce() -> None:
    """Serve Python ASGI and WSGI applications as native systemd services."""
