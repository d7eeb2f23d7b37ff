from __future__ import annotations

from dataclasses import replace

import pytest

from geostore.errors import ConflictError
from geostore.node.attempt_marks import (
    Mark,
    Resolution,
    after_clear,
    after_publish,
    after_stage,
    resolve,
)
from geostore.types import SceneRecord, SceneState


def test_puts_of_older_or_cleared_attempts_come_too_late() -> None:
    assert after_stage(None, 3, "s") == Mark(attempt=3)
    assert after_stage(Mark(attempt=3), 3, "s") == Mark(attempt=3)
    assert after_stage(Mark(attempt=3, is_cleared=True), 4, "s") == Mark(attempt=4)
    for mark in (Mark(attempt=4), Mark(attempt=3, is_cleared=True)):
        with pytest.raises(ConflictError, match="attempt 3 was given up or overtaken"):
            after_stage(mark, 3, "s")


def test_echoes_of_older_attempts_change_nothing() -> None:
    mark = Mark(attempt=4)
    assert after_publish(mark, 3) == (mark, False)
    assert after_clear(mark, 3) == (mark, False)
    assert after_publish(mark, 4) == (mark, True)
    assert after_clear(mark, 4) == (Mark(attempt=4, is_cleared=True), True)
    assert after_clear(None, 1) == (Mark(attempt=1, is_cleared=True), True)


def record(state: SceneState, **fields: object) -> SceneRecord:
    empty = SceneRecord(dataset_id="d", scene="s", state=state, attempt=2)
    return replace(empty, **fields)  # type: ignore[arg-type]


def test_what_a_starting_node_does_with_staged_tiles_is_what_the_record_says() -> None:
    cells = ("b", "a", "x")
    clear, keep = Resolution(action="clear"), Resolution(action="keep")
    assert resolve(None, "v1", cells) == clear
    staging = record(SceneState.STAGING, staging_version="v1", staging_cells=cells)
    assert resolve(staging, "v1", cells) == keep
    assert resolve(staging, "v0", cells) == clear
    aborted = record(SceneState.ABORTED, staging_version="v1", staging_cells=cells)
    assert resolve(aborted, "v1", cells) == clear
    decided = record(
        SceneState.COMMITTED, version="v1", cells=("a", "b", "c"), replaced_version="v0"
    )
    shown = Resolution(action="publish", cells=("a", "b"), replaced_version="v0")
    assert resolve(decided, "v1", cells) == shown
    assert resolve(decided, "v1", ("x",)) == clear
    published = replace(decided, state=SceneState.PUBLISHED, replaced_version=None)
    assert resolve(published, "v1", cells).action == "publish"
    assert resolve(published, "v0", cells) == clear
