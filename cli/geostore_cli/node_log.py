"""A node's log: what happened when, for files, journals and programs that read them."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

__all__ = ["node_log_handler"]


class _Lines(logging.Formatter):
    """`2016-01-12T16:06:42.461Z level=warning message`, an error's traceback behind it.

    Times are UTC, so that the logs of nodes in several places sort together. Control
    characters are shown escaped: what a client sent must not fake a second line.
    """

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        whose = "" if record.name.startswith("geostore") else f"{record.name}: "
        said = "".join(
            char if char.isprintable() else ascii(char)[1:-1] for char in record.getMessage()
        )
        line = f"{time.replace('+00:00', 'Z')} level={record.levelname.lower()} {whose}{said}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


def node_log_handler() -> logging.Handler:
    """Writes a node's log to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines())
    return handler
