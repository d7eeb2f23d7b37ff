"""What each node is told to look at."""

from __future__ import annotations

import pytest

from geostore.grid import Region
from geostore.node.shares import SLOTS_FEW, Plan
from geostore.query import Query
from geostore.ring import Ring, RingNode, found_ring, with_node_joined
from geostore.types import BBox, DatasetDefinition, ResolutionGroup

DEFINITION = DatasetDefinition(
    id="id",
    name="a",
    scheme="geohash",
    length=5,
    placement=5,
    groups=(ResolutionGroup(10.0, 512, 512),),
    created_us=1,
)


def make_ring(replicas: int) -> Ring:
    ring = found_ring(RingNode("1", "n1", "a:1"), cluster_id="c", replicas=replicas)
    for number in ("2", "3"):
        ring = with_node_joined(ring, RingNode(number, f"n{number}", f"a:{number}"), None)
    return ring


def box(side: float) -> Region:
    return Region.from_bbox(BBox(10.0, 50.0, 10.0 + side, 50.0 + side))


@pytest.mark.parametrize(
    ("query", "replicas", "is_whole"),
    [
        (Query(), 1, True),
        (Query(), 2, False),
        (Query(geocode="u0"), 1, True),
        (Query(region=box(0.01)), 1, False),
        (Query(region=box(20.0)), 1, True),
        (Query(region=box(0.01)), 2, False),
    ],
)
def test_a_node_is_told_its_slots_where_it_needs_or_likes_to_know(
    query: Query, replicas: int, is_whole: bool
) -> None:
    plan = Plan(make_ring(replicas), query, [DEFINITION])
    shares = plan.first_shares()
    told = [share.leaf(query, None).slots for share in shares]
    assert all((slots is None) == is_whole for slots in told)
    if not is_whole:
        assert {slot for slots in told for slot in slots or ()} == set(plan.slots.tolist())
    if query.region is not None and replicas == 1:
        assert (len(plan.slots) <= SLOTS_FEW) != is_whole
