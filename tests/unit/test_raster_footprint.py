"""Footprints hold every pixel, and not much more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pyproj import CRS, Transformer

from geostore.errors import UnreadableSourceError
from geostore.grid import GEOHASH, Region, covering
from geostore.raster import RasterBand, SourceGrid
from geostore.raster.footprint import footprint

MERCATOR_M = 20037508.342789244
MODIS = "+proj=sinu +R=6371007.181 +units=m"


def grid(
    crs: str, transform: tuple[float, float, float, float, float, float], height: int, width: int
) -> SourceGrid:
    return SourceGrid(CRS.from_user_input(crs).to_wkt(), transform, height, width, 512, 512)


def north_up(
    crs: str, left: float, top: float, pixel: float, height: int, width: int
) -> SourceGrid:
    return grid(crs, (pixel, 0.0, left, 0.0, -pixel, top), height, width)


GRIDS = {
    "utm": north_up("EPSG:32629", 499_980, 5_900_040, 10, 10980, 10980),
    "utm upside down": grid("EPSG:32629", (10, 0, 499_980, 0, 10, 5_790_240), 10980, 10980),
    "rotated": grid("EPSG:32618", (8, 3, 500_000, 3, -8, 4_200_000), 2000, 1000),
    "antimeridian": north_up("EPSG:32660", 570_585, 5_847_615, 100, 2355, 2325),
    "north pole": north_up("EPSG:3413", -3e6, 3e6, 1000, 6000, 6000),
    "north pole off centre": north_up("EPSG:3413", -1e6, 3e6, 1000, 3500, 3500),
    "north pole at a corner": north_up("EPSG:3413", 0.0, 1e6, 1000, 1000, 1000),
    "south pole": north_up("EPSG:3031", -3e6, 3e6, 1000, 6000, 6000),
    "beside the south pole": north_up("EPSG:3031", 1e5, 1e6, 1000, 500, 500),
    "beside the south pole, fine": north_up("EPSG:3031", 1e5, 1e6, 1, 500_000, 500_000),
    "globe": north_up("EPSG:4326", -180, 90, 0.5, 360, 720),
    "globe from Greenwich": north_up("EPSG:4326", 0, 90, 0.5, 360, 720),
    "globe with a margin": north_up("EPSG:4326", -180.25, 90.25, 0.5, 361, 721),
    "older datum": north_up("EPSG:4267", -180, 80, 0.1, 1700, 3600),
    "grads": north_up("EPSG:4807", 0, 55, 0.1, 100, 100),
    "web Mercator globe": north_up(
        "EPSG:3857", -MERCATOR_M, MERCATOR_M, MERCATOR_M / 128, 256, 256
    ),
    "web Mercator": north_up("EPSG:3857", -8e6, 4e6, 20, 2000, 2000),
    "Mollweide globe": north_up("ESRI:54009", -18_040_096, 9_020_048, 20_000, 902, 1804),
    "plate carree globe": north_up("EPSG:4087", -20_037_508.34, 10_018_754.17, 50_000, 401, 802),
    "sinusoidal": north_up(MODIS, 0, 5_559_752.6, 463.3127, 2400, 2400),
    "sinusoidal over the pole": north_up(MODIS, -1_111_950.5, 10_007_554.7, 463.3127, 2400, 2400),
    "sinusoidal past 180": north_up(MODIS, 17 * 1_111_950.5, -1_111_950.5, 463.3127, 2400, 2400),
    "azimuthal globe": north_up("+proj=aeqd +lat_0=40 +lon_0=20", -2.1e7, 2.1e7, 50_000, 840, 840),
    "both hemispheres": north_up("+proj=laea +lat_0=90", -9e6, 9e6, 25_000, 720, 720),
    "pole between mesh points": north_up(
        "+proj=laea +lat_0=90", -2565 * 3515.625, 2565 * 3515.625, 3515.625, 5120, 5120
    ),
    "a few pixels": north_up("EPSG:32618", 500_000, 4_200_000, 1e5, 2, 3),
}


def pixel_places(source: SourceGrid, many: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Longitudes (-180..180) and latitudes of points all over a raster, edges included."""
    random = np.random.default_rng(7)
    columns = random.uniform(0, source.width, many)
    rows = random.uniform(0, source.height, many)
    edge = many // 8
    columns[:edge], columns[edge : 2 * edge] = 0.0, source.width
    rows[2 * edge : 3 * edge], rows[3 * edge : 4 * edge] = 0.0, source.height
    # A hair inside, since an edge itself may belong to the neighbour.
    columns = np.clip(columns, 1e-6, source.width - 1e-6)
    rows = np.clip(rows, 1e-6, source.height - 1e-6)
    a, b, c, d, e, f = source.transform
    to_globe = Transformer.from_crs(source.crs_wkt, "EPSG:4326", always_xy=True)
    lon, lat = to_globe.transform(a * columns + b * rows + c, d * columns + e * rows + f)
    lon, lat = np.asarray(lon), np.asarray(lat)
    found = np.isfinite(lon) & (np.abs(lat) <= 90)
    return (lon[found] + 180.0) % 360.0 - 180.0, lat[found]


def cells_of(lon: np.ndarray, lat: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows of the geohash cells of points, by arithmetic alone."""
    columns, rows = GEOHASH.grid_size(length)
    column = np.floor((lon + 180.0) / 360.0 * columns).astype(np.int64) % columns
    row = np.floor((90.0 - lat) / 180.0 * rows).astype(np.int64)
    return column, np.clip(row, 0, rows - 1)


def missed(region: Region, source: SourceGrid) -> list[tuple[float, float]]:
    lon, lat = pixel_places(source)
    assert len(lon) > 500
    inside = region.matches_cells(GEOHASH, *cells_of(lon, lat, 9), 9)
    return list(zip(lon[~inside].tolist(), lat[~inside].tolist(), strict=True))


@pytest.mark.parametrize("name", GRIDS)
def test_every_pixel_lies_inside(name: str) -> None:
    assert missed(footprint(GRIDS[name]), GRIDS[name]) == []


@pytest.mark.parametrize(
    ("name", "length"),
    [
        ("utm", 5),
        ("rotated", 6),
        ("antimeridian", 4),
        ("north pole", 3),
        ("north pole off centre", 3),
        ("beside the south pole", 4),
        ("sinusoidal", 3),
        ("sinusoidal over the pole", 3),
        ("web Mercator", 6),
    ],
)
def test_few_cells_are_named_in_vain(name: str, length: int) -> None:
    """At most a rim of cells beyond those that a dense sampling of the raster hits."""
    source = GRIDS[name]
    named = set(covering(GEOHASH, footprint(source), length))
    lon, lat = pixel_places(source, 60_000)
    places = np.unique(np.column_stack(cells_of(lon, lat, length)), axis=0).tolist()
    hit = {GEOHASH.geocode_at(column, row, length) for column, row in places}
    assert hit <= named
    rim = {neighbour for code in hit for neighbour in GEOHASH.neighbours(code)} - hit
    assert len(named - hit - rim) <= 0.02 * len(named)
    assert len(named) <= 1.35 * len(hit) + 8


def test_a_utm_scene_is_its_edges_not_its_corners() -> None:
    """The northern edge of a UTM tile bends: its middle lies north of its corners."""
    source = GRIDS["utm"]
    to_globe = Transformer.from_crs(source.crs_wkt, "EPSG:4326", always_xy=True)
    corners = to_globe.transform([499_980.0, 609_780.0], [5_900_040.0, 5_900_040.0])[1]
    (box,) = footprint(source).bboxes
    assert box.north >= max(corners)
    assert box.north - max(corners) < 0.001


def test_across_the_antimeridian_it_splits_in_two_small_boxes() -> None:
    boxes = sorted(footprint(GRIDS["antimeridian"]).bboxes, key=lambda box: box.west)
    assert [(box.west, box.east) for box in boxes] == [
        (-180.0, pytest.approx(-178.51, abs=0.02)),
        (pytest.approx(178.0, abs=0.02), 180.0),
    ]


def test_a_pole_inside_means_all_longitudes_around_it() -> None:
    region = footprint(GRIDS["north pole off centre"])
    for lon in range(-180, 180, 15):
        assert region.matches(GEOHASH, GEOHASH.encode(lon, 89.99, 8))
    # x from -1000 to 2500 km, y from -500 to 3000 km: the far corner is at 55 degrees.
    assert not region.matches(GEOHASH, GEOHASH.encode(0.0, 50.0, 8))


@pytest.mark.parametrize(
    ("name", "latitudes"),
    [
        ("north pole", [89.9999]),
        ("north pole at a corner", [89.9999]),
        ("south pole", [-89.9999]),
        ("sinusoidal over the pole", [89.9999]),
        ("azimuthal globe", [89.9999, -89.9999]),
        ("both hemispheres", [89.9999]),
        ("pole between mesh points", [89.9999]),
    ],
)
def test_around_a_pole_nothing_is_left_out(name: str, latitudes: list[float]) -> None:
    """Each place near the pole that the raster has, at any longitude."""
    source = GRIDS[name]
    region = footprint(source)
    lon = np.arange(-179.5, 180.0, 1.0)
    a, b, c, d, e, f = source.transform
    for latitude in latitudes:
        lat = np.full_like(lon, latitude)
        from_globe = Transformer.from_crs("EPSG:4326", source.crs_wkt, always_xy=True)
        x, y = (np.asarray(one) for one in from_globe.transform(lon, lat))
        column = (e * (x - c) - b * (y - f)) / (a * e - b * d)
        row = (a * (y - f) - d * (x - c)) / (a * e - b * d)
        has = (column >= 0) & (column < source.width) & (row >= 0) & (row < source.height)
        assert has.any()
        matches = region.matches_cells(GEOHASH, *cells_of(lon[has], lat[has], 9), 9)
        assert matches.all()


def test_up_to_the_limb_of_a_geostationary_disk() -> None:
    """Where the globe bends away a pixel spans degrees: sampling alone would stop short."""
    crs = "+proj=geos +h=35786023 +lon_0=-75 +sweep=x +a=6378137 +b=6356752.31414"
    source = north_up(crs, -5_434_894.885, 5_434_894.885, 10_020.08, 1085, 1085)
    region = footprint(source)
    to_globe = Transformer.from_crs(source.crs_wkt, "EPSG:4326", always_xy=True)
    angle = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    near, far = np.zeros_like(angle), np.full_like(angle, 5_434_894.0)
    for _ in range(40):
        middle = (near + far) / 2
        on = np.isfinite(to_globe.transform(middle * np.cos(angle), middle * np.sin(angle))[0])
        near, far = np.where(on, middle, near), np.where(on, far, middle)
    lon, lat = (
        np.asarray(one) for one in to_globe.transform(near * np.cos(angle), near * np.sin(angle))
    )
    assert region.matches_cells(GEOHASH, *cells_of(lon, lat, 8), 8).all()


def test_a_mercator_globe_ends_where_quadtiles_end() -> None:
    (box,) = footprint(GRIDS["web Mercator globe"]).bboxes
    assert (box.west, box.east) == (-180.0, 180.0)
    assert box.north == pytest.approx(85.0511287798066, abs=1e-12)
    assert box.north <= 85.0511287798066
    assert box.south >= -85.0511287798066


def test_a_box_of_degrees_is_exact() -> None:
    """A raster on the geohash lattice names its own cells, none of their neighbours."""
    bounds = GEOHASH.bounds("u4pru")
    width, height = bounds.east - bounds.west, bounds.north - bounds.south
    source = grid("EPSG:4326", (width / 64, 0, bounds.west, 0, -height / 64, bounds.north), 64, 64)
    assert covering(GEOHASH, footprint(source), 5) == ["u4pru"]


def test_the_margin_is_about_two_pixels() -> None:
    source = north_up("EPSG:32618", 500_000, 4_200_000, 10, 1000, 1000)
    to_globe = Transformer.from_crs(source.crs_wkt, "EPSG:4326", always_xy=True)
    (box,) = footprint(source).bboxes
    north = to_globe.transform(505_000.0, 4_200_000.0)[1]
    south = to_globe.transform(505_000.0, 4_190_000.0)[1]
    pixel_deg = (north - south) / 1000
    assert pixel_deg < box.north - north < 4 * pixel_deg
    assert pixel_deg < south - box.south < 4 * pixel_deg


@pytest.mark.parametrize("file", ["cog_dateline.tif", "goes.tif", "RGB.byte.tif"])
def test_real_rasters(shared_data: Path, file: str) -> None:
    band = RasterBand(str(shared_data / "generic" / file))
    assert missed(footprint(band.grid), band.grid) == []
    band.close()


def test_a_geostationary_disk_is_not_the_whole_globe(shared_data: Path) -> None:
    band = RasterBand(str(shared_data / "generic" / "goes.tif"))
    region = footprint(band.grid)
    # GOES-East looks from 75 W: it sees about 81 degrees around there.
    assert region.matches(GEOHASH, GEOHASH.encode(-75.0, 0.0, 6))
    assert not region.matches(GEOHASH, GEOHASH.encode(100.0, 0.0, 6))
    assert not region.matches(GEOHASH, GEOHASH.encode(20.0, 0.0, 6))
    assert not region.matches(GEOHASH, GEOHASH.encode(-75.0, 88.0, 6))
    band.close()


def test_a_crs_that_proj_cannot_use() -> None:
    source = SourceGrid(
        'ENGCRS["a hall",EDATUM["a hall"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],'
        'LENGTHUNIT["metre",1]]',
        (1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
        10,
        10,
        10,
        10,
    )
    with pytest.raises(UnreadableSourceError, match="PROJ cannot use"):
        footprint(source)


def test_a_raster_beside_the_globe() -> None:
    source = north_up("+proj=geos +h=35785831 +lon_0=0 +sweep=y", 9e6, 9e6, 1000, 100, 100)
    with pytest.raises(UnreadableSourceError, match="no pixel of a raster of 100 x 100"):
        footprint(source)
