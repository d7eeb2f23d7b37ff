from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from geostore.errors import ConflictError, GeostoreError, InvalidInputError
from geostore.node.scene_states import (
    Abort,
    Begin,
    Clear,
    Cleared,
    Commit,
    Publish,
    Published,
    advance,
    check,
    demand,
    is_settled,
    is_unchanged,
)
from geostore.types import SceneRecord, SceneState


def begin(version: str = "v1", cells: Any = ("a", "b"), *, replace: bool = False) -> Begin:
    return Begin(
        dataset_id="d", scene="s", version=version, cells=tuple(cells), replace=replace,
        path=f"/{version}", reader="r",
    )  # fmt: skip


def commit(version: str = "v1", cells: Any = ("a",)) -> Commit:
    return Commit(version=version, cells=tuple(cells), bytes_total=7, now_us=5, path=f"/{version}")


def published(version: str = "v1", cells: Any = ("a",)) -> SceneRecord:
    return advance(advance(advance(None, begin(version)), commit(version, cells)), Published())


def test_the_straight_way() -> None:
    record = advance(None, begin())
    assert record.state is SceneState.STAGING
    assert not is_settled(record)
    assert demand(record) is None
    record = advance(record, commit())
    assert record.state is SceneState.COMMITTED
    assert demand(record) == Publish(version="v1", replaced_version=None)
    record = advance(record, Published())
    assert is_settled(record)
    assert (record.cells, record.bytes, record.path) == (("a",), 7, "/v1")
    assert is_unchanged(record, "v1")
    assert advance(record, begin()) is record


def test_replacing_keeps_the_old_version_until_the_commit_decides() -> None:
    old = published("v1", ("a", "b"))
    with pytest.raises(ConflictError, match="--replace"):
        advance(old, begin("v2"))
    record = advance(old, begin("v2", replace=True))
    assert (record.version, record.cells, record.path) == ("v1", ("a", "b"), "/v1")
    record = advance(record, commit("v2", ("b",)))
    assert demand(record) == Publish(version="v2", replaced_version="v1")
    record = advance(record, Published())
    assert demand(record) == Clear(version="v1", cells=("a", "b"))
    record = advance(record, Cleared())
    assert is_settled(record)
    assert (record.version, record.cells, record.path) == ("v2", ("b",), "/v2")


def test_an_abort_clears_and_the_old_version_stays_served() -> None:
    record = advance(advance(None, begin()), Abort())
    assert demand(record) == Clear(version="v1", cells=("a", "b"))
    record = advance(record, Cleared())
    assert (record.state, record.version) == (SceneState.ABORTED, None)
    record = advance(advance(published(), begin("v2", replace=True)), Abort())
    assert demand(record) == Clear(version="v2", cells=("a", "b"))
    assert advance(record, Cleared()) == replace(published(), attempt=2)


def test_what_is_decided_cannot_be_aborted() -> None:
    decided = advance(advance(None, begin()), commit())
    for record in (decided, advance(decided, Published())):
        with pytest.raises(ConflictError, match="cannot be aborted"):
            advance(record, Abort())


def test_events_told_twice_change_nothing() -> None:
    staging = advance(None, begin())
    assert advance(staging, begin()) == staging
    committed = advance(staging, commit())
    assert advance(committed, commit()) == committed
    done = advance(committed, Published())
    assert advance(done, Published()) == done
    assert advance(done, commit()) == done
    aborted = advance(staging, Abort())
    assert advance(aborted, Abort()) == aborted


def test_a_commit_must_fit_its_attempt() -> None:
    staging = advance(None, begin())
    with pytest.raises(InvalidInputError, match="never announced"):
        advance(staging, commit(cells=("a", "z")))
    with pytest.raises(ConflictError, match="cannot be committed"):
        advance(staging, commit("v2"))
    with pytest.raises(ConflictError, match="nothing was begun"):
        advance(None, commit())
    with pytest.raises(ConflictError):
        advance(staging, Published())
    with pytest.raises(ConflictError):
        advance(staging, Cleared())
    with pytest.raises(ConflictError, match="settle it first"):
        advance(staging, begin("v2"))


def test_lost_cells_are_put_back_by_the_same_version() -> None:
    record = replace(published("v1", ("a", "b", "c")[:2]), cells=("a",), lost_cells=("b",))
    assert not is_unchanged(record, "v1")
    attempt = advance(record, begin("v1", ("a", "b", "c")))
    assert attempt.staging_cells == ("b",)
    assert advance(attempt, begin("v1", ("a", "b"))).staging_cells == ("b",)
    # Given up, only what was lost is cleared, never what is served.
    aborted = advance(attempt, Abort())
    assert demand(aborted) == Clear(version="v1", cells=("b",))
    assert advance(aborted, Cleared()) == replace(record, attempt=2)
    repaired = advance(attempt, commit("v1", ("a", "b")))
    assert (repaired.cells, repaired.lost_cells) == (("a", "b"), ())
    assert demand(repaired) == Publish(version="v1", replaced_version=None)


class SceneLife(RuleBasedStateMachine):
    """Any events in any order: served cells change by commits alone, and all comes to rest."""

    def __init__(self) -> None:
        super().__init__()
        self.record: SceneRecord | None = None
        self.served: tuple[str | None, tuple[str, ...]] = (None, ())

    def tell(self, event: Any) -> None:
        before = self.record
        try:
            self.record = advance(self.record, event)
        except GeostoreError:
            assert self.record == before
            return
        if isinstance(event, Commit):
            self.served = (event.version, tuple(sorted(set(event.cells))))

    @rule(
        version=st.sampled_from(["v1", "v2", "v3"]),
        cells=st.sets(st.sampled_from("abc"), min_size=1),
        replace=st.booleans(),
    )
    def begin(self, version: str, cells: set[str], replace: bool) -> None:
        self.tell(begin(version, sorted(cells), replace=replace))

    @rule(version=st.sampled_from(["v1", "v2", "v3"]), cells=st.sets(st.sampled_from("abc")))
    def commit(self, version: str, cells: set[str]) -> None:
        if self.record is not None and self.record.version == version:
            return  # told again, with other cells: the caller's bug, checked by the writer
        self.tell(commit(version, sorted(cells)))

    @rule(event=st.sampled_from([Abort(), Published(), Cleared()]))
    def any_event(self, event: Any) -> None:
        self.tell(event)

    @precondition(lambda self: self.record is not None)
    @rule()
    def recover(self) -> None:
        assert self.record is not None
        if self.record.state is SceneState.STAGING:
            self.tell(Abort())
        for _ in range(3):
            wanted = demand(self.record)
            if wanted is not None:
                self.tell(Published() if isinstance(wanted, Publish) else Cleared())
        assert is_settled(self.record)

    @invariant()
    def what_is_served_is_what_was_committed(self) -> None:
        if self.record is not None:
            check(self.record)
            assert (self.record.version, self.record.cells) == self.served
            assert SceneRecord.from_json(self.record.to_json()) == self.record


TestSceneLife = SceneLife.TestCase
TestSceneLife.settings = settings(max_examples=60, stateful_step_count=25)
