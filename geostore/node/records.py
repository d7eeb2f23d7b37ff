"""Records: small named values in the catalog, changed only by compare-and-set.

    dataset/<name>              DatasetDefinition
    deleted/<dataset id>        Tombstone: written first, kept for ever
    scene/<dataset id>/<scene>  SceneRecord

A value is one letter and JSON. The letter says whether a starting writer has anything to do
(`U`, unsettled) or may pass by (`S`) without reading the JSON, which for a scene lists its
cells: a store of many thousand scenes opens without parsing them.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any, Final

from geostore.errors import CorruptDataError, InvalidInputError
from geostore.node.scene_states import is_settled
from geostore.types import DatasetDefinition, SceneRecord, validate_name

__all__ = [
    "COPY_PREFIX",
    "DATASET_PREFIX",
    "LOST_DATASETS",
    "LOST_TILES_PREFIX",
    "MARK_PREFIX",
    "SCENE_PREFIX",
    "TOMBSTONE_PREFIX",
    "Tombstone",
    "dataset_of_scene_record",
    "dataset_record_name",
    "decode_dataset",
    "decode_scene",
    "decode_tombstone",
    "encode_dataset",
    "encode_scene",
    "encode_tombstone",
    "is_unsettled",
    "scene_record_name",
    "tombstone_record_name",
    "validate_dataset_id",
    "validate_scene",
]

DATASET_PREFIX: Final = "dataset/"
SCENE_PREFIX: Final = "scene/"
TOMBSTONE_PREFIX: Final = "deleted/"
MARK_PREFIX: Final = "attempt/"
"""Of this node alone: the newest attempt at each scene it ever held tiles of."""
COPY_PREFIX: Final = "copy/"
"""Before the name of a record whose home is another node."""

LOST_DATASETS: Final = "lost/datasets"
"""Says that this node's catalog was lost: other nodes may know of datasets that it does not."""
LOST_TILES_PREFIX: Final = "lost/tiles/"
"""Before dataset id and scene: tiles lost here, of which the scene's home is to hear."""

SCENE_BYTES_MAX: Final = 320
"""Longest scene id in UTF-8; a file name (255) with a content hash and a time step fits, and
so does the record's name in the catalog's key limit of 511 bytes."""

_DATASET_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
_SETTLED: Final = b"S"
_UNSETTLED: Final = b"U"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """A deleted dataset. Its id never returns; `is_finished` once rows and files are gone."""

    dataset_id: str
    name: str
    deleted_us: int
    is_finished: bool = False


def validate_dataset_id(dataset_id: str) -> str:
    """The id itself, if it can name a directory. Raises InvalidInputError otherwise."""
    if not _DATASET_ID.match(dataset_id):
        raise InvalidInputError(
            f"dataset id {dataset_id[:80]!r}: expected 1..64 letters, digits, '_' or '-'"
        )
    return dataset_id


def validate_scene(scene: str) -> str:
    """The scene id itself, if it can be a record's name.

    Raises:
        InvalidInputError: empty, too long, or with control characters.
    """
    size = len(scene.encode(errors="surrogatepass"))
    if not 1 <= size <= SCENE_BYTES_MAX:
        raise InvalidInputError(
            f"scene id {scene[:40]!r}: {size} bytes in UTF-8, expected 1..{SCENE_BYTES_MAX}"
        )
    if not scene.isprintable():  # control characters, lone surrogates, line separators
        raise InvalidInputError(f"scene id {scene!r}: expected printable characters only")
    return scene


def dataset_record_name(name: str) -> str:
    """The record of a dataset's definition. Raises InvalidInputError."""
    return DATASET_PREFIX + validate_name(name)


def tombstone_record_name(dataset_id: str) -> str:
    """The record that says that a dataset id was deleted. Raises InvalidInputError."""
    return TOMBSTONE_PREFIX + validate_dataset_id(dataset_id)


def scene_record_name(dataset_id: str, scene: str) -> str:
    """The record of a scene. Raises InvalidInputError."""
    return f"{SCENE_PREFIX}{validate_dataset_id(dataset_id)}/{validate_scene(scene)}"


def dataset_of_scene_record(name: str) -> str:
    """The dataset's id in a scene record's name. Raises InvalidInputError: no such name.

    >>> dataset_of_scene_record("scene/id-7/S2A_MSIL1C")
    'id-7'
    """
    prefix, _, rest = name.partition("/")
    dataset_id, _, scene = rest.partition("/")
    if f"{prefix}/" != SCENE_PREFIX or not scene:
        raise InvalidInputError(f"record {name[:80]!r}: expected {SCENE_PREFIX}ID/SCENE")
    return validate_dataset_id(dataset_id)


def _encode(value: dict[str, Any], *, settled: bool) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return (_SETTLED if settled else _UNSETTLED) + text.encode()


def _decode(name: str, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data[1:])
    except ValueError:
        value = None
    if data[:1] not in {_SETTLED, _UNSETTLED} or not isinstance(value, dict):
        raise CorruptDataError(
            f"record {name!r}: {data[:40]!r} is no record's value;"
            " geostore verify --rebuild makes the catalog anew"
        )
    return value


def is_unsettled(data: bytes) -> bool:
    """Whether a starting writer has to look at the record."""
    return data[:1] != _SETTLED


def encode_dataset(definition: DatasetDefinition) -> bytes:
    """The inverse of `decode_dataset`."""
    return _encode(definition.to_json(), settled=True)


def decode_dataset(name: str, data: bytes) -> DatasetDefinition:
    """Raises CorruptDataError naming the record."""
    value = _decode(name, data)
    try:
        return DatasetDefinition.from_json(value)
    except (TypeError, KeyError, InvalidInputError) as error:
        raise CorruptDataError(f"record {name!r}: {error}") from error


def encode_tombstone(tombstone: Tombstone) -> bytes:
    """The inverse of `decode_tombstone`."""
    return _encode(asdict(tombstone), settled=tombstone.is_finished)


def decode_tombstone(name: str, data: bytes) -> Tombstone:
    """Raises CorruptDataError naming the record."""
    try:
        return Tombstone(**_decode(name, data))
    except TypeError as error:
        raise CorruptDataError(f"record {name!r}: {error}") from error


def encode_scene(record: SceneRecord, *, settled: bool | None = None) -> bytes:
    """The inverse of `decode_scene`; `settled` False marks one that is not copied yet."""
    return _encode(record.to_json(), settled=is_settled(record) if settled is None else settled)


def decode_scene(name: str, data: bytes) -> SceneRecord:
    """Raises CorruptDataError naming the record."""
    value = _decode(name, data)
    try:
        return SceneRecord.from_json(value)
    except (TypeError, KeyError, ValueError) as error:
        raise CorruptDataError(f"record {name!r}: {error}") from error
