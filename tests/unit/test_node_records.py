from __future__ import annotations

import pytest

from geostore.errors import CorruptDataError, InvalidInputError
from geostore.node import records
from geostore.node.records import Tombstone
from geostore.types import DatasetDefinition, SceneRecord, SceneState

DEFINITION = DatasetDefinition(id="i", name="n", scheme="geohash", length=5, placement=3)


def test_values_come_back() -> None:
    assert records.decode_dataset("x", records.encode_dataset(DEFINITION)) == DEFINITION
    tombstone = Tombstone(dataset_id="i", name="n", deleted_us=3)
    assert records.decode_tombstone("x", records.encode_tombstone(tombstone)) == tombstone
    scene = SceneRecord(
        dataset_id="i", scene="s", state=SceneState.PUBLISHED, version="v", cells=("a", "b"),
        properties={"é": 1},
    )  # fmt: skip
    assert records.decode_scene("x", records.encode_scene(scene)) == scene


def test_the_first_letter_tells_a_starting_writer_what_to_look_at() -> None:
    def unsettled(state: SceneState, **fields: str) -> bool:
        record = SceneRecord(dataset_id="i", scene="s", state=state, version="v", **fields)
        return records.is_unsettled(records.encode_scene(record))

    assert not unsettled(SceneState.PUBLISHED)
    assert unsettled(SceneState.PUBLISHED, replaced_version="u")
    assert unsettled(SceneState.COMMITTED)
    assert unsettled(SceneState.STAGING, staging_version="w")
    assert unsettled(SceneState.ABORTED, staging_version="w")
    begun = Tombstone(dataset_id="i", name="n", deleted_us=3)
    assert records.is_unsettled(records.encode_tombstone(begun))
    done = Tombstone(dataset_id="i", name="n", deleted_us=3, is_finished=True)
    assert not records.is_unsettled(records.encode_tombstone(done))
    assert not records.is_unsettled(records.encode_dataset(DEFINITION))


@pytest.mark.parametrize("data", [b"", b"S", b"Snot json", b'X{"a":1}', b"S[1]", b'S{"a":1}'])
def test_a_damaged_value_names_its_record(data: bytes) -> None:
    for decode in (records.decode_dataset, records.decode_scene, records.decode_tombstone):
        with pytest.raises(CorruptDataError, match="record 'scene/i/s'"):
            decode("scene/i/s", data)


def test_scene_ids_of_providers_are_taken() -> None:
    for scene in ("S2A_MSIL1C_20160112T160642", "a b", "x" * 320, "météo.tif-0a1b", "a/b"):
        name = records.scene_record_name("id-1", scene)
        assert len(name.encode()) <= 511, "the catalog's limit of a key"


@pytest.mark.parametrize("scene", ["", "a\nb", "a\0b", "x" * 321, "é" * 161, "\ud800", "a\u2028"])
def test_scene_ids_that_are_none(scene: str) -> None:
    with pytest.raises(InvalidInputError, match="scene id"):
        records.scene_record_name("id-1", scene)


@pytest.mark.parametrize("dataset_id", ["", "..", "a/b", "a.b", "-a", "x" * 65, "a\n", "é"])
def test_dataset_ids_become_directories(dataset_id: str) -> None:
    with pytest.raises(InvalidInputError, match="dataset id"):
        records.validate_dataset_id(dataset_id)


def test_a_dataset_name_of_10_000_letters() -> None:
    with pytest.raises(InvalidInputError, match="10000 characters"):
        records.dataset_record_name("x" * 10_000)
