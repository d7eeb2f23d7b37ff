from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geostore import errors
from geostore.errors import (
    InvalidInputError,
    ProtocolVersionError,
    StaleRingError,
    WrongClusterError,
)
from geostore.query import CoverageRequest, Cursor, Explain, ExplainNode, LeafQuery, Query, Windows
from geostore.rpc import messages as wire
from geostore.rpc.v1 import common_pb2, node_pb2
from geostore.types import (
    BLOCK_DTYPE,
    BandStatistics,
    CallContext,
    ClearRequest,
    DatasetDefinition,
    NodeStatus,
    PublishRequest,
    RecordCopy,
    ResolutionGroup,
    SceneRecord,
    SceneState,
    TileDetails,
    TileKey,
)

CALL = CallContext(request_id="r1")
texts = st.text(st.characters(codec="utf-8"), max_size=12)
cells = st.lists(st.text("0123", min_size=1, max_size=5), max_size=5).map(tuple)
counts = st.integers(0, 2**32 - 1)
finite = st.none() | st.floats(allow_nan=False)
HEAD = wire.make_head(CALL, "c", 3)


@given(
    st.builds(
        PublishRequest,
        dataset_id=texts,
        scene=texts,
        version=texts,
        attempt=counts,
        cells=cells,
        replaced_version=st.none() | texts,
        replaced_cells=cells,
    )
)
def test_publications_cross(request: PublishRequest) -> None:
    assert wire.publish_request(wire.publish_to_wire(request)) == request


@given(
    st.builds(
        ClearRequest, dataset_id=texts, scene=texts, version=texts, attempt=counts, cells=cells
    )
)
def test_clearings_cross(request: ClearRequest) -> None:
    assert wire.clear_request(wire.clear_to_wire(request, HEAD)) == request


@given(
    st.builds(
        RecordCopy,
        name=texts,
        revision=st.integers(0, 2**64 - 1),
        value=st.none() | st.binary(max_size=20),
    )
)
def test_record_copies_cross(copy: RecordCopy) -> None:
    assert wire.record_copy(wire.copy_to_wire(copy, HEAD)) == copy


@given(
    slots=st.none() | st.frozensets(st.integers(0, 4095), max_size=30),
    limit=st.none() | st.integers(0, 9),
    batch_rows=st.integers(1, 65_536),
    after=st.booleans(),
    scene=texts,
)
def test_leaf_queries_cross(
    slots: frozenset[int] | None, limit: int | None, batch_rows: int, after: bool, scene: str
) -> None:
    key = (False, 0.0, False, 5, "s2", "9q8", scene, "v", "id")
    request = LeafQuery(
        query=Query(datasets=("s2",), limit=limit, sort="-time"),
        slots=slots,
        after=Cursor("-time", key) if after else None,
        batch_rows=batch_rows,
    )
    question = node_pb2.LeafQuestion.FromString(
        wire.leaf_query_to_wire(request).SerializeToString()
    )
    assert wire.leaf_query(question) == request


def test_slots_are_bits_lowest_first() -> None:
    request = LeafQuery(query=Query(), slots=frozenset({0, 9, 4095}))
    said = wire.leaf_query_to_wire(request).slots
    assert (len(said), said[0], said[1], said[511]) == (512, 1, 2, 128)
    with pytest.raises(InvalidInputError, match="got 1 bytes, expected 512"):
        wire.leaf_query(node_pb2.LeafQuestion(query_json=b"{}", slots=b"x"))


def test_batch_rows_are_bounded() -> None:
    question = node_pb2.LeafQuestion(query_json=b"{}", batch_rows=2**32 - 1)
    assert wire.leaf_query(question).batch_rows == 65_536
    question.batch_rows = 0
    assert wire.leaf_query(question).batch_rows == LeafQuery(query=Query()).batch_rows


@given(
    blocks=st.integers(0, 4),
    statistics=st.lists(
        st.builds(
            BandStatistics, minimum=finite, maximum=finite, mean=finite, p01=finite, p99=finite
        ),
        max_size=3,
    ).map(tuple),
    histogram=st.none() | st.just(tuple(range(101))),
    method=st.none() | texts,
    provider=st.none() | texts.filter(bool),
    text=texts,
)
def test_tile_details_cross(
    blocks: int,
    statistics: tuple[BandStatistics, ...],
    histogram: tuple[int, ...] | None,
    method: str | None,
    provider: str | None,
    text: str,
) -> None:
    details = TileDetails(
        key=TileKey("id", text, "v", "9q8"),
        blocks=np.arange(6 * blocks, dtype="<u4").view(BLOCK_DTYPE),
        statistics=statistics,
        cloud_histogram=histogram,
        cloud_method=method,
        provider_method=provider,
        checksum="ab",
        bytes=7,
        properties={"name": text, "list": [1, None]},
    )
    said = wire.details_to_wire(details)
    back = wire.details_from_wire(said)
    assert back.blocks.tobytes() == details.blocks.tobytes()
    assert not back.blocks.flags.writeable
    assert replace(back, blocks=details.blocks) == details
    said.ClearField("provider_method")  # as nodes tell it that know no rules
    assert wire.details_from_wire(said).provider_method == method


@given(reason=st.none() | texts, error=st.none() | texts, name=texts, uptime_s=st.floats(0, 1e9))
def test_node_statuses_cross(
    reason: str | None, error: str | None, name: str, uptime_s: float
) -> None:
    status = NodeStatus(
        id="i",
        name=name,
        address="h:1",
        zone="z",
        state="serving",
        epoch=2,
        slots=3,
        slots_first=4,
        slots_used=5,
        datasets=6,
        scenes=7,
        tiles=8,
        bytes=9,
        disk_free_bytes=10,
        read_only_reason=reason,
        version="0.1",
        clock_us=11,
        uptime_s=uptime_s,
        error=error,
    )
    assert wire.status_from_wire(wire.status_to_wire(status)) == status


def test_definitions_and_records_cross() -> None:
    definition = DatasetDefinition(
        id="id",
        name="s2",
        scheme="geohash",
        length=5,
        placement=5,
        groups=(ResolutionGroup(10.0, 512, 512),),
    )
    assert wire.definition_from_json(wire.dump_json(definition.to_json())) == definition
    record = SceneRecord(
        dataset_id="id", scene="\udcff", state=SceneState.STAGING, staging_cells=("9q8",)
    )
    assert wire.record_from_json(wire.dump_json(record.to_json())) == record


def test_explains_cross() -> None:
    explain = Explain(structure="time", rows_total=3, predicates={"dataset": "in s2"})
    explain.add("walk", "time", estimated_rows=3)
    explain.nodes_asked.append("a")
    explain.stages_ms["plan"] = 1.5
    back = Explain()
    wire.explain_from_json(wire.dump_json(explain.to_json()), back)
    assert back.to_json() == explain.to_json()
    assert back.slots_matched is None
    explain.slots_matched = 7
    explain.nodes.append(ExplainNode(name="a", slots=7, rows=3, error="gone"))
    back = Explain()
    wire.explain_from_json(wire.dump_json(explain.to_json()), back)
    assert back.to_json() == explain.to_json()
    assert back.nodes == explain.nodes


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
FIELDS = sorted(
    {*DatasetDefinition.__dataclass_fields__, *SceneRecord.__dataclass_fields__}
    | {*Query.__dataclass_fields__, *Explain.__dataclass_fields__}
)
READERS = (
    wire.definition_from_json,
    wire.record_from_json,
    wire.query_from_json,
    lambda text: wire.explain_from_json(text, Explain()),
)


@pytest.mark.parametrize("read", READERS)
@given(
    text=st.binary(max_size=40)
    | JSON.map(wire.dump_json)
    | st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6).map(wire.dump_json)
)
def test_hostile_json_is_invalid_input_at_worst(read: object, text: bytes) -> None:
    with suppress(InvalidInputError):
        read(text)  # type: ignore[operator]


def test_deep_json_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="not JSON"):
        wire.query_from_json(b'{"region":' + b"[" * 100_000)


def check(head: common_pb2.RequestHead, **options: object) -> None:
    wire.check_head(head, **{"cluster_id": "c", "epoch": 3, **options})  # type: ignore[arg-type]


def test_heads_are_checked() -> None:
    check(HEAD)
    check(wire.make_head(CALL, "c", 0))
    check(wire.make_head(CALL, "c", 2), epoch=None)
    check(wire.make_head(CALL), may_be_stranger=True)
    with pytest.raises(ProtocolVersionError, match="version 0"):
        check(common_pb2.RequestHead(cluster_id="c", ring_epoch=3))
    for options in ({}, {"may_be_stranger": True}):
        with pytest.raises(WrongClusterError, match="'other'"):
            check(wire.make_head(CALL, "other", 3), **options)
    with pytest.raises(WrongClusterError):
        check(wire.make_head(CALL, "", 3))
    with pytest.raises(StaleRingError, match="epoch 2, this node has 3") as caught:
        check(wire.make_head(CALL, "c", 2))
    assert caught.value.epoch == 3
    later = wire.make_head(CALL, "c", 3)
    later.consistency_epoch = 1
    with pytest.raises(InvalidInputError, match="consistency_epoch"):
        check(later)


PAGE = (Path(__file__).parents[2] / "docs" / "wire.md").read_text("utf-8")


def test_the_page_shows_a_query_that_reads() -> None:
    text, wanted = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    windows = Windows.parse("16D")
    assert wire.coverage_request_from_json(wanted.encode()) == CoverageRequest(
        target=95, windows=windows, members="unsure"
    )
    query = wire.query_from_json(text.encode())
    unset = {name for name in Query.__dataclass_fields__ if getattr(query, name) is None}
    assert unset == set()


def test_the_page_lists_every_error_code() -> None:
    listed = set(re.findall(r"`([a-z_]+)`", PAGE.split("## Errors")[1].split("##")[0]))
    assert {getattr(errors, name).code for name in errors.__all__} - {"error"} <= listed
