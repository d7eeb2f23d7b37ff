"""Publishing tiles by the hundred thousand, as whoever has them has packed them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInputError
from geostore.index.effects import Effect, Tiles
from geostore.index.geocodes import packing_of
from geostore.index.operations import Decision
from geostore.index.packed import PackedTiles
from geostore.index.packing import Group, provider_covers
from geostore.index.state import State, read_schema

__all__ = ["insert"]


def insert(state: State, tiles: PackedTiles) -> Decision[int]:
    """Publishes tiles under the providers' cloud covers; tells how many.

    O(n), but for scene versions that have tiles already: their cells are looked up.

    Raises:
        InvalidInputError: a tile that is there or comes twice, a cell that is none, percents out
            of range.
    """
    _check_rows(tiles.rows)
    groups = [Group.decode(scene.head) for scene in tiles.scenes]
    schemas = {schema.digest: read_schema(schema.text) for schema in tiles.schemas}
    schemes = [(schemas.get(each.schema) or state.schema(each.schema)).scheme for each in groups]
    for name in sorted(set(schemes)):
        own = np.array([each == name for each in schemes], np.bool_)[tiles.scene]
        packing_of(name).pack_many(tiles.rows["geocode"][own])
    versions: dict[tuple[str, str, str], int] = {}
    of_scene = np.array(
        [versions.setdefault((g.dataset_id, g.scene, g.version), len(versions)) for g in groups],
        np.int64,
    )
    _check_new(state, tiles, list(versions), of_scene[tiles.scene])
    effects: list[Effect] = [each for each in tiles.schemas if each.digest not in state.schemas]
    effects += [each for each in tiles.scenes if not state.has_scene(each.digest)]
    effects.append(Tiles(tiles.rows, tiles.lengths, [tiles.details], is_published=True))
    return Decision(effects, len(tiles.rows))


def _check_rows(rows: npt.NDArray[np.void]) -> None:
    covers = provider_covers(rows)
    coverage = rows["pixel_coverage"]
    wrong = ~((coverage >= 0) & (coverage <= 100)) | (covers < 0) | (covers > 100)
    wrong |= rows["provider_xor"] != 0
    if wrong.any():
        first = int(wrong.argmax())
        raise InvalidInputError(
            f"packed tile {first}: pixel coverage {coverage[first]}, cloud cover {covers[first]};"
            " expected percent in 0..100, as the provider has it"
        )


def _check_new(
    state: State,
    tiles: PackedTiles,
    versions: Sequence[tuple[str, str, str]],
    of_tile: npt.NDArray[np.int64],
) -> None:
    geocodes = tiles.rows["geocode"]
    keys = np.empty(len(geocodes), dtype=[("version", "<i8"), ("geocode", geocodes.dtype)])
    keys["version"], keys["geocode"] = of_tile, geocodes
    keys = keys[np.lexsort((geocodes, of_tile))]
    twice = np.flatnonzero(keys[1:] == keys[:-1])
    found = None
    if len(twice):
        number, geocode = keys[twice[0]].tolist()
        found = (versions[number], geocode.decode("ascii"), "comes twice")
    contents = state.contents
    for number, version in enumerate(versions):
        if not contents.may_have(*version):
            continue
        there = set(contents.geocodes_under(*version))
        there.update(tile.key.geocode for tile in contents.staged_under(*version))
        if there:
            own = {each.decode("ascii") for each in geocodes[of_tile == number].tolist()}
            for geocode in sorted(own & there)[:1]:
                found = (version, geocode, "is there already")
    if found is not None:
        (_, scene, name), geocode, how = found
        raise InvalidInputError(
            f"packed tiles: tile {geocode} of scene {scene!r} (version {name[:12]}) {how}"
        )
