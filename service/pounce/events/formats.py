"""What a line of the log looks like."""

import json
import logging
import time

from pounce.events.loggers import Fields

_LEVELS = {
    logging.DEBUG: "DEBUG",
    logging.INFO: "INFO",
    logging.WARNING: "WARNING",
    logging.ERROR: "ERROR",
    logging.CRITICAL: "CRITICAL",
}


class _Formatter(logging.Formatter):
    """A formatter whose times and levels are not those that an application sets for all of them."""

    converter = staticmethod(time.localtime)

    def level(self, record: logging.LogRecord) -> str:
        """The name of the record's level: addLevelName() may have given it colours."""
        return _LEVELS.get(record.levelno, record.levelname)


class TextFormatter(_Formatter):
    """``2026-01-31 12:00:00 INFO  [1.0] message``, where 1.0 is generation and slot."""

    def format(self, record: logging.LogRecord) -> str:
        """*record* as text."""
        fields: Fields = getattr(record, "pounce", {})
        who = ""
        if "POUNCE_WORKER" in fields:
            who = f"[{fields['POUNCE_GENERATION']}.{fields['POUNCE_WORKER']}] "
        when = self.formatTime(record, "%Y-%m-%d %H:%M:%S")
        return f"{when} {self.level(record):7} {who}{super().format(record)}"


class JSONFormatter(_Formatter):
    """One JSON object a line; the journal fields are members, in lower case."""

    def format(self, record: logging.LogRecord) -> str:
        """*record* as text."""
        fields: Fields = getattr(record, "pounce", {})
        return json.dumps(
            {
                "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
                "level": self.level(record).lower(),
                "logger": record.name,
                "message": super().format(record),
                **{name.lower(): value for name, value in fields.items()},
            },
            default=str,
        )
