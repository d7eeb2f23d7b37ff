"""Resolution groups: the formula, its defaults, and that docs/lattices.md shows them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from geostore.errors import InvalidInputError
from geostore.grid import (
    METRES_PER_DEGREE,
    default_length,
    default_placement,
    group_for,
    make_groups,
    pixel_size_m,
)
from geostore.types import SchemeName

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "lattices.md"

# Sinusoidal MODIS pixels are these; the products call them 250, 500 and 1000 m.
MODIS_250, MODIS_500, MODIS_1000 = 231.65635826, 463.31271653, 926.62543305

READER_DEFAULTS: list[tuple[str, tuple[float, ...], int, int]] = [
    ("Sentinel-2", (10, 20, 60), 5, 13),
    ("Landsat", (15, 30), 5, 12),
    ("NLCD", (30,), 4, 10),
    ("NAIP, 0.6 m", (0.6,), 6, 16),
    ("NAIP, 1 m", (1,), 6, 16),
    ("MODIS 250 m", (MODIS_250,), 3, 8),
    ("MODIS 500 m", (MODIS_500,), 3, 8),
    ("MODIS 1000 m", (MODIS_1000,), 3, 8),
    ("MODIS 500 m and 1000 m", (MODIS_500, MODIS_1000), 3, 8),
]


def table() -> str:
    """The table of docs/lattices.md."""
    lines = [
        "| scenes | groups (m) | scheme | length | equator cell (km) | height × width (pixels) |",
        "|---|---|---|---|---|---|",
    ]
    for name, resolutions, geohash, quadtile in READER_DEFAULTS:
        for scheme, length in (("geohash", geohash), ("quadtile", quadtile)):
            groups = make_groups(scheme, length, resolutions)  # type: ignore[arg-type]
            wide = 2 ** ((5 * length + 1) // 2 if scheme == "geohash" else length)
            high = 2 ** (5 * length // 2) * 2 if scheme == "geohash" else wide
            sides = [360 / count * METRES_PER_DEGREE / 1000 for count in (high, wide)]
            sizes = ", ".join(f"{group.resolution_m:.6g}" for group in groups)
            shapes = ", ".join(f"{group.height} × {group.width}" for group in groups)
            km = " × ".join(f"{side:.4g}" for side in sides)
            lines.append(f"| {name} | {sizes} | {scheme} | {length} | {km} | {shapes} |")
    return "\n".join(lines)


def test_the_documented_table_is_what_the_code_gives() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    shown = "\n".join(
        line for line in text.splitlines() if line.startswith("| ") and line.count("|") == 7
    )
    expected = table().splitlines()
    assert shown.splitlines() == [expected[0], *expected[2:]], "\n" + table()


def shapes(scheme: SchemeName, length: int, *resolutions: float) -> list[tuple[int, int]]:
    return [(group.height, group.width) for group in make_groups(scheme, length, resolutions)]


def test_sentinel_2_nests() -> None:
    assert shapes("geohash", 5, 10, 20, 60) == [(512, 512), (256, 256), (128, 128)]
    assert shapes("quadtile", 13, 60, 20, 10) == [(512, 512), (256, 256), (128, 128)]
    assert [group.resolution_m for group in make_groups("geohash", 5, (60, 10, 20))] == [10, 20, 60]


def test_the_formula_by_hand() -> None:
    # 4892.0 m / 15 m = 326.1 -> 352; 352 / 2 = 176.
    assert shapes("geohash", 5, 15, 30) == [(352, 352), (176, 176)]
    # 19568 and 39136 m / 30 m = 652.3 and 1304.5.
    assert shapes("geohash", 4, 30) == [(672, 1312)]
    # 9783.9 m / 15 m = 652.3 -> 1024.
    assert shapes("quadtile", 12, 15, 30) == [(1024, 1024), (512, 512)]
    # 672 and 1312 have 32 in common: of whole numbers up to 1.01 * 7 only 4 divides both.
    assert shapes("geohash", 4, 30, 210) == [(672, 1312), (168, 328)]
    # Up to 1.01 times the ratio: 19.9 / 10 allows 2, 19.7 / 10 does not.
    assert shapes("geohash", 5, 10, 19.9) == [(512, 512), (256, 256)]
    assert shapes("geohash", 5, 10, 19.7) == [(512, 512), (512, 512)]


def test_web_map_pixels_fit_their_tiles() -> None:
    circumference = 2 * math.pi * 6_378_137
    for length in (8, 13, 16):
        assert shapes("quadtile", length, circumference / 2**length / 512) == [(512, 512)]
    # A geohash cell of exactly 512 pixels stays one.
    assert shapes("geohash", 5, 360 / 2**13 * METRES_PER_DEGREE / 512) == [(512, 512)]


@pytest.mark.parametrize(
    ("resolutions", "word"),
    [
        ((), "no resolution"),
        ((0,), "positive"),
        ((-10,), "positive"),
        ((math.nan,), "positive"),
        ((math.inf,), "positive"),
        ((10, 20, 10), "once"),
        ((1000,), r"pixels: expected at least 16 a side.*--length.*--resolution"),
        ((0.01,), r"pixels: expected at most 32768 a side.*--length.*--resolution"),
    ],
)
def test_bad_resolutions(resolutions: tuple[float, ...], word: str) -> None:
    with pytest.raises(InvalidInputError, match=word):
        make_groups("geohash", 5, resolutions)


def test_bad_lengths() -> None:
    for length in (-1, 0, 13):
        with pytest.raises(InvalidInputError, match=f"length {length}"):
            make_groups("geohash", length, (10,))


def test_group_for() -> None:
    groups = make_groups("geohash", 5, (10, 20, 60))
    assert [group_for(groups, size) for size in (10, 15, 19.6, 19.7, 20, 59, 60, 1000)] == [
        0, 0, 0, 1, 1, 2, 2, 2,
    ]  # fmt: skip
    assert group_for(groups, 9.81) == 0
    with pytest.raises(InvalidInputError, match=r"5 m is finer.*10, 20, 60 m.*--resolution 5"):
        group_for(groups, 5.0)
    with pytest.raises(InvalidInputError, match="positive"):
        group_for(groups, math.nan)


def test_default_length_is_nearest_512() -> None:
    assert default_length("geohash", 10) == 5
    assert default_length("quadtile", 10) == 13
    assert default_length("geohash", 300) == 3  # 521.8 -> 544 against 130.5 -> 160
    assert default_length("quadtile", 300) == 9  # 260.9 -> 512 against 521.8 -> 1024
    assert default_length("geohash", 0.6) == 7  # 2048 or 256
    assert default_length("geohash", 1e-9) == 12
    assert default_length("quadtile", 1e9) == 1
    for scheme in ("geohash", "quadtile"):
        with pytest.raises(InvalidInputError, match="positive"):
            default_length(scheme, 0.0)


def test_default_placement() -> None:
    assert [default_placement("geohash", length) for length in (3, 5, 8)] == [3, 5, 5]
    assert [default_placement("quadtile", length) for length in (8, 12, 16)] == [8, 12, 12]


def test_pixel_size() -> None:
    assert pixel_size_m((10, 0, 0, 0, -10, 0), False) == 10
    assert pixel_size_m((10, 0, 0, 0, -30, 0), False) == 10
    assert pixel_size_m((100, 0, 0, 0, -100, 0), False, 0.3048) == pytest.approx(30.48)
    assert pixel_size_m((0.001, 0, 0, 0, -0.002, 0), True) == pytest.approx(111.31949)
    # Turned by 90 degrees, and by 45.
    assert pixel_size_m((0, 20, 0, 10, 0, 0), False) == 10
    half = math.sqrt(0.5)
    assert pixel_size_m((half, half, 0, half, -half, 0), False) == pytest.approx(1)
    for wrong in ((0, 0, 0, 0, 0, 0), (1, 1, 0, 1, 1, 0), (math.nan, 0, 0, 0, 1, 0), (1, 0, 0)):
        with pytest.raises(InvalidInputError):
            pixel_size_m(wrong, False)
