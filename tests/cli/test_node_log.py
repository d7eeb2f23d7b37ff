"""A node's log: one line a record, whatever was sent, and the tracebacks of bugs."""

from __future__ import annotations

import logging
import re

import pytest

from geostore_cli.node_log import node_log_handler


def written(capsys: pytest.CaptureFixture[str], log: logging.Logger) -> list[str]:
    handler = node_log_handler()
    log.addHandler(handler)
    try:
        log.warning("path=%s", "a\nlevel=error \x1b[2Jb é")
        try:
            int("no number")
        except ValueError:
            log.exception("method=%s failed", "/Query")
    finally:
        log.removeHandler(handler)
    return capsys.readouterr().err.splitlines()


def test_a_record_is_a_line_with_time_and_level(capsys: pytest.CaptureFixture[str]) -> None:
    warning, error, *traceback = written(capsys, logging.getLogger("geostore.test"))
    moment = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    assert re.fullmatch(moment + r" level=warning path=a\\nlevel=error \\x1b\[2Jb é", warning)
    assert re.fullmatch(moment + r" level=error method=/Query failed", error)
    assert traceback[0] == "Traceback (most recent call last):"
    assert traceback[-1].startswith("ValueError: invalid literal")


def test_another_library_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert " level=warning grpc: path=" in written(capsys, logging.getLogger("grpc"))[0]
