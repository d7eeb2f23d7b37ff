"""One line a call, as key=value fields: INFO for coordinated calls, DEBUG for the others.

A user's request is one coordinated call; the leaf calls that it causes on other nodes carry
the same request id, so that its way through the cluster can be read from the nodes' logs.
"""

from __future__ import annotations

import logging
import re

from geostore.server.call import CallSummary
from geostore.server.limits import CallClass

__all__ = ["log_call", "log_line"]

_log = logging.getLogger("geostore.server")
_PLAIN = re.compile(r"[\w.:/@\[\]%+-]{1,128}", re.ASCII)
_VALUE_CHARS_MAX = 128


def log_call(summary: CallSummary) -> None:
    """Writes a call's line, if anybody listens at its level."""
    level = logging.INFO if summary.call_class is CallClass.COORDINATED else logging.DEBUG
    if _log.isEnabledFor(level):
        _log.log(level, "%s", log_line(summary))


def log_line(summary: CallSummary) -> str:
    """The fields. Clients choose request ids: what is not plain is quoted and cut.

    >>> from geostore.server.limits import CallClass
    >>> log_line(CallSummary(method="/s/Query", call_class=CallClass.LEAF, peer="ipv4:[::1]:9",
    ...     request_id="a b", status="OK", seconds=0.25, rows=0, bytes=0, stalled=False))
    "method=/s/Query request_id='a b' peer=ipv4:[::1]:9 class=leaf status=OK seconds=0.250000"
    """
    fields = [
        ("method", summary.method),
        ("request_id", summary.request_id or "-"),
        ("peer", summary.peer),
        ("class", str(summary.call_class)),
        ("status", summary.status),
    ]
    if summary.stalled:
        fields.append(("reason", "stalled"))
    if summary.rows:
        fields.append(("rows", str(summary.rows)))
    if summary.bytes:
        fields.append(("bytes", str(summary.bytes)))
    fields.append(("seconds", f"{summary.seconds:.6f}"))
    return " ".join(f"{key}={_value(value)}" for key, value in fields)


def _value(value: str) -> str:
    return value if _PLAIN.fullmatch(value) else ascii(value[:_VALUE_CHARS_MAX])
