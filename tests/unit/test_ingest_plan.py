"""What a plan refuses, and how it cuts sources into chunks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from geostore.errors import InvalidInputError
from geostore.ingest.datasets import DatasetRequest, complete, define
from geostore.ingest.plan import Chunking, plan_scene
from geostore.raster.positions import SourceWindow
from geostore.raster.source import SourceGrid
from geostore.scenes import Scene, open_source, readers
from geostore.types import DatasetDefinition


def _scene(path: Path) -> Scene:
    (scene,) = open_source(str(path))
    return scene


def _definition(scene: Scene, **request) -> DatasetDefinition:
    return complete(define("d", DatasetRequest(**request), readers()[scene.reader]), scene)


@pytest.mark.parametrize(
    ("height", "width", "block_height", "block_width", "pixels", "expected"),
    [
        (10980, 10980, 1024, 1024, 1 << 20, (1024, 1024)),  # one JP2 codestream tile
        (10980, 10980, 512, 512, 1 << 20, (1024, 1024)),
        (10980, 10980, 1, 10980, 1 << 20, (95, 10980)),  # strips of one row
        (963, 969, 963, 969, 1 << 20, (963, 969)),  # one block is all
        (100, 100, 256, 256, 1 << 20, (100, 100)),  # a block larger than the image
        (5000, 5000, 256, 256, 1, (256, 256)),  # never less than a block
    ],
)
def test_chunks_are_whole_blocks_of_about_the_size_asked(
    height: int, width: int, block_height: int, block_width: int, pixels: int, expected
) -> None:
    grid = SourceGrid("", (1, 0, 0, 0, -1, 0), height, width, block_height, block_width)
    chunking = Chunking.of(grid, pixels)
    assert (chunking.height, chunking.width) == expected


def test_chunks_over_a_window_cover_it_once() -> None:
    grid = SourceGrid("", (1, 0, 0, 0, -1, 0), 1000, 900, 64, 64)
    chunking = Chunking.of(grid, 128 * 128)
    window = SourceWindow(100, 130, 500, 700)
    seen = np.zeros((grid.height, grid.width), np.uint8)
    for part in chunking.over(grid, window):
        assert part.row % 64 == part.column % 64 == 0
        seen[part.row : part.row + part.height, part.column : part.column + part.width] += 1
    inside = seen[
        window.row : window.row + window.height, window.column : window.column + window.width
    ]
    assert inside.min() == seen.max() == 1


def test_too_many_cells_names_the_ways_out(make_raster) -> None:
    with _scene(make_raster("s.tif", np.ones((1, 600, 600), "uint8"))) as scene:
        definition = _definition(scene, length=6, resolutions_m=(10.0,))
        with pytest.raises(InvalidInputError, match=r"more than 20 cells.*--max-tiles.*--length"):
            plan_scene(scene, definition, cells_max=20)
        assert len(plan_scene(scene, definition).cells) > 20


def test_tiles_of_too_few_source_pixels_are_refused(make_raster) -> None:
    path = make_raster(
        "s.tif",
        np.ones((1, 50, 50), "uint8"),
        transform=(600.0, 0, 500_000.0, 0, -600.0, 4_200_000.0),
    )
    with _scene(path) as scene:
        definition = _definition(scene, length=5, resolutions_m=(10.0,))
        with pytest.raises(InvalidInputError, match=r"8\.\d source pixels a side.*--length"):
            plan_scene(scene, definition)


def test_a_band_finer_than_all_groups_names_resolution(make_raster) -> None:
    with _scene(make_raster("s.tif", np.ones((1, 64, 64), "uint8"))) as scene:
        definition = _definition(scene, resolutions_m=(30.0,))
        with pytest.raises(InvalidInputError, match="--resolution"):
            plan_scene(scene, definition)


def test_quadtiles_end_before_the_poles(make_raster) -> None:
    path = make_raster(
        "north.tif",
        np.ones((1, 64, 64), "uint8"),
        crs="EPSG:4326",
        transform=(0.1, 0, 10.0, 0, -0.1, 89.0),
    )
    with _scene(path) as scene:
        with pytest.raises(InvalidInputError, match=r"85\.0511.*geohash"):
            plan_scene(scene, _definition(scene, scheme="quadtile"))
        assert plan_scene(scene, _definition(scene)).cells


def test_oversampling_is_lattice_pixels_a_source_pixel(make_raster) -> None:
    # At 60° north a degree of longitude is half as long: twice the pixels, times the
    # rounding of 489 up to 512 pixels both ways.
    path = make_raster(
        "s.tif",
        np.ones((1, 300, 300), "uint8"),
        crs="EPSG:32618",
        transform=(10.0, 0, 500_000.0, 0, -10.0, 6_655_000.0),
    )
    with _scene(path) as scene:
        plan = plan_scene(scene, _definition(scene, length=5, resolutions_m=(10.0,)))
        assert plan.oversampling == pytest.approx(2 * (512 / 489.2) ** 2, rel=0.02)


def test_the_version_follows_content_and_pixel_shaping_fields_only(make_raster) -> None:
    ones, twos = (
        make_raster(f"{value}.tif", np.full((1, 64, 64), value, "uint8")) for value in (1, 2)
    )
    with _scene(ones) as first, _scene(twos) as second:
        versions = {
            plan_scene(scene, _definition(scene, **request)).version
            for scene, request in [
                (first, {}),
                (first, {"codec": "small"}),
                (first, {"scheme": "quadtile"}),
                (first, {"resampling": "cubic"}),
                (second, {}),
            ]
        }
    assert len(versions) == 4
