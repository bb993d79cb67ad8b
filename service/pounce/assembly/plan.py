"""Preparing what a generation is made from; nothing that serves is touched."""

import os
from collections.abc import Iterable
from dataclasses import replace
from ssl import SSLContext

from pounce.assembly.tls import equip
from pounce.config.plan import Listener, Plan
from pounce.config.service import ServerConfig
from pounce.events.loggers import Routing


def make_plan(
    config: ServerConfig,
    listeners: Iterable[Listener],
    *,
    default: SSLContext | None = None,
    log: Routing | None = None,
) -> Plan:
    """A plan to serve *listeners*, those of the plan before, as *config* says.

    *default* is the TLS of addresses without a certificate. Raises ConfigError.
    """
    return Plan(_in_place(config), equip(listeners, config.listen, default), log)


def renew(serving: Plan) -> Plan:
    """The plan of a next generation that differs in nothing but its certificates, read anew."""
    return replace(serving, listeners=equip(serving.listeners, serving.config.listen))


def _in_place(config: ServerConfig) -> ServerConfig:
    """*config* with the directory that its path leads to now: a deploy may move a symbolic link."""
    if not config.directory:
        return config
    return replace(config, directory=os.path.realpath(config.directory))
