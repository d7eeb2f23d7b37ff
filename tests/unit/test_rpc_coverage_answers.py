"""Answers on coverage through their messages; what is cut or made up is refused."""

from __future__ import annotations

import numpy as np
import pytest

from geostore.errors import InvalidInputError, UnavailableError
from geostore.query import CoverageAnswer, CoverageGroups
from geostore.query.coverage import NUMBER_COLUMNS, TEXT_COLUMNS, groups_of
from geostore.rpc import messages as wire
from geostore.rpc.coverage_answers import coverage_messages, read_coverage
from geostore.rpc.v1 import common_pb2, node_pb2
from geostore.types import BlockBitmaps, TileDetails
from tests.synthetic_tiles import make_batch, make_entry


def objects(values: list[str]) -> np.ndarray:
    found = np.empty(len(values), object)
    found[:] = values
    return found


def answer(count: int) -> CoverageAnswer:
    tiles = np.arange(count) % 3 + 1
    numbers = {name: np.arange(count) + 1 for name in NUMBER_COLUMNS}
    numbers["tiles"] = tiles
    texts = {name: objects([f"{name}-{i % 7}" for i in range(count)]) for name in TEXT_COLUMNS}
    scene = objects([f"scéne-{i % 11}\udcff" for i in range(int(tiles.sum()))])
    group = np.arange(0, count, 2)
    members = make_batch([make_entry(scene=f"s{i}") for i in group]) if count else None
    return CoverageAnswer(
        groups=CoverageGroups(scene=scene, **texts, **numbers),
        members=members,
        member_group=group,
    )


def messages(said: CoverageAnswer) -> list[node_pb2.LeafCoverageResponse]:
    made = coverage_messages(node_pb2.LeafCoverageResponse, said, lambda: None)
    return [node_pb2.LeafCoverageResponse.FromString(one.SerializeToString()) for one in made]


@pytest.mark.parametrize("count", [0, 1, 5, 4096, 9000])
def test_what_is_sent_is_read(count: int) -> None:
    said = answer(count)
    sent = messages(said)
    assert all(len(one.SerializeToString()) < 1 << 20 for one in sent)
    read = read_coverage(sent)
    for name in (*TEXT_COLUMNS, *NUMBER_COLUMNS, "scene"):
        column = getattr(read.groups, name)
        assert column.tolist() == getattr(said.groups, name).tolist()
    assert read.member_group.tolist() == said.member_group.tolist()
    if said.members is None:
        assert read.members is None
    else:
        assert read.members is not None
        assert read.members.scene.tolist() == said.members.scene.tolist()


def test_no_groups_are_an_answer() -> None:
    empty = CoverageAnswer(groups=groups_of({}), members=None, member_group=np.empty(0, np.int64))
    (end,) = messages(empty)
    assert end.WhichOneof("part") == "end"
    assert len(read_coverage([end]).groups) == 0


def test_a_check_that_raises_ends_the_answer() -> None:
    def check() -> None:
        raise UnavailableError("over")

    with pytest.raises(UnavailableError):
        list(coverage_messages(node_pb2.LeafCoverageResponse, answer(5), check))


def test_what_is_cut_or_made_up_is_refused() -> None:
    groups, scenes, members, end = messages(answer(10))
    wrong = [
        [],
        [groups, scenes, members],
        [groups, scenes, end],
        [groups, members, end],
        [scenes, members, end],
        [groups, scenes, members, end, end],
        [groups, groups, scenes, scenes, members, end],
        [node_pb2.LeafCoverageResponse()],
    ]
    for part in (
        {"texts_json": b"[]"},
        {"texts_json": b'{"texts": [1]}'},
        {"texts_json": b'{"texts": []}'},
        {"dataset": b"123"},
        {"tiles": np.zeros(10, "<i8").tobytes()},
        {"total": np.zeros(10, "<i8").tobytes()},
        {"lower": b""},
        {"scene": b"1234"},
    ):
        changed = common_pb2.CoverageGroupsChunk()
        changed.CopyFrom(groups.groups)
        for name, value in part.items():
            setattr(changed, name, value)
        wrong.append([node_pb2.LeafCoverageResponse(groups=changed), scenes, members, end])
    for group in ([9, 8, 7, 6, 5], [0, 2, 4, 6, 10], [-1, 2, 4, 6, 8], [0], []):
        changed_members = common_pb2.CoverageMembersChunk(
            rows=members.members.rows, group=np.array(group, "<i8").tobytes()
        )
        wrong.append([groups, scenes, node_pb2.LeafCoverageResponse(members=changed_members), end])
    for each in wrong:
        with pytest.raises(InvalidInputError):
            read_coverage(each)
    assert len(read_coverage([groups, scenes, members, end]).groups) == 10


@pytest.mark.parametrize(
    "bitmaps",
    [
        None,
        BlockBitmaps(
            valid_all=bytes(32), valid_any=bytes(range(32)), clear_all=None, clear_any=None
        ),
        BlockBitmaps(
            valid_all=bytes(32),
            valid_any=bytes(range(32)),
            clear_all=bytes(32),
            clear_any=bytes(range(32)),
            cloud_nodata=(-3, 255),
        ),
    ],
)
def test_bitmaps_cross_with_details(bitmaps: BlockBitmaps | None) -> None:
    entry = make_entry()
    details = TileDetails(
        key=entry.meta.key,
        blocks=entry.blocks,
        statistics=(),
        cloud_histogram=None,
        cloud_method=None,
        provider_method=None,
        checksum="ab",
        bytes=7,
        properties={},
        bitmaps=bitmaps,
    )
    assert wire.details_from_wire(wire.details_to_wire(details)).bitmaps == bitmaps
