"""What must hold of the disks of a ring's nodes when nothing is under way."""

from __future__ import annotations

import runpy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import xxhash

from geostore.node import Node
from geostore.node.commit_files import read_commit_file
from geostore.node.records import decode_scene
from geostore.node.scene_keeper import copy_name
from geostore.node.scene_states import is_settled
from geostore.ring import Ring, placement_key, slot_of
from geostore.types import DatasetDefinition, SceneRecord, TileKey

small = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "small_store.py")))


class _Due:
    """What one node is to have by the records of all."""

    def __init__(self) -> None:
        self.rows: dict[TileKey, str] = {}
        """The checksum of each tile."""
        self.commits: dict[Path, set[str]] = {}
        """The cells of each commit file."""


def problems_at_rest(
    nodes: Mapping[str, Node], ring: Ring, definitions: Sequence[DatasetDefinition]
) -> Iterator[str]:
    """Compares records, their copies, rows, files and commit files of all nodes, by id.

    Tiles are those that `small_store.make_tile` makes of `definitions`.
    """
    first = nodes[ring.founder]
    due = {node.id: _Due() for node in ring.nodes}
    for node_id, node in nodes.items():
        if node.datasets() != first.datasets():
            yield f"{node_id}: other datasets"
        gone = {one.dataset_id for one in node.known_datasets.deleted()}
        if gone != {one.dataset_id for one in first.known_datasets.deleted()}:
            yield f"{node_id}: other deletions"
        for name in node.catalog.record_names():
            if any(f"/{dataset_id}/" in name for dataset_id in gone):
                yield f"{node_id}: {name} is left of a deleted dataset"
        for record in _scene_records(node):
            yield from _check_record(record, node_id, nodes, ring)
            for definition in definitions:
                if definition.id == record.dataset_id:
                    _note(record, definition, ring, due)
    for node_id, node in nodes.items():
        for text in _check_node(node, due[node_id]):
            yield f"{node_id}: {text}"


def _scene_records(node: Node) -> Iterator[SceneRecord]:
    for name in node.catalog.record_names("scene/"):
        found = node.catalog.record_get(name)
        assert found is not None
        yield decode_scene(name, found.value)


def _check_record(
    record: SceneRecord, node_id: str, nodes: Mapping[str, Node], ring: Ring
) -> Iterator[str]:
    name = f"scene/{record.dataset_id}/{record.scene}"
    home, *others = [node.id for node in ring.replicas_of(slot_of(name))]
    if home != node_id:
        yield f"{node_id}: {name} is at home elsewhere"
        return
    found = nodes[home].catalog.record_get(name)
    assert found is not None
    if not is_settled(record) or found.value[:1] != b"S":
        yield f"{name} is {record.state}, not at rest"
    if record.cells:
        decided = read_commit_file(nodes[home].directory.home_file(record.dataset_id, record.scene))
        if (decided.version, decided.cells) != (record.version, record.cells):
            yield f"{name}: its home remembers {decided}, the record is {record}"
    for other in others:
        copy = nodes[other].catalog.record_get(copy_name(name))
        if copy is None or copy.value[8:] != found.value:
            yield f"{name}: its copy at {other} differs"


def _note(
    record: SceneRecord, definition: DatasetDefinition, ring: Ring, due: Mapping[str, _Due]
) -> None:
    for cell in record.cells:
        tile = small.make_tile(definition, record.scene, record.version, cell)
        for holder in ring.replicas_of(slot_of(placement_key(cell, definition.placement or 1))):
            due[holder.id].rows[tile.meta.key] = tile.checksum
            commit = Path(record.dataset_id, record.scene)
            due[holder.id].commits.setdefault(commit, set()).add(cell)


def _check_node(node: Node, due: _Due) -> Iterator[str]:
    yield from (f"verify: {problem}" for problem in node.verify().problems)
    if node.tile_holder.staged():
        yield f"staged still: {node.tile_holder.staged()}"
    rows = {key: node.catalog.checksum(key) for key in node.catalog.keys()}  # noqa: SIM118
    if rows != due.rows:
        yield f"rows {rows}, expected {due.rows}"
    paths = {node.tile_path(key): checksum for key, checksum in rows.items()}
    for path in node.directory.tiles.rglob("*"):
        if path.is_file() and path not in paths:
            yield f"a file without a row: {path}"
    for path, checksum in paths.items():
        if not path.is_file():
            yield f"a row without a file: {path}"
        elif xxhash.xxh3_128_hexdigest(path.read_bytes()) != checksum:
            yield f"other bytes: {path}"
    yield from _check_commits(node, due)
    left = sorted(str(path) for path in node.directory.tmp.iterdir())
    if left:
        yield f"left in tmp: {left}"


def _check_commits(node: Node, due: _Due) -> Iterator[str]:
    """Each node's own share of each scene is written down, for a rebuild."""
    expected = {
        node.directory.commit_file(*name.parts): cells for name, cells in due.commits.items()
    }
    found = {
        path: set(read_commit_file(path).cells)
        for path in node.directory.commits.rglob("*.json")
        if path.suffixes == [".json"]  # else what a home decided
    }
    if found != expected:
        yield f"commit files {found}, expected {expected}"
