"""The MODIS reader on made-up HDF4-EOS granules: detection, identity, bands, damage."""

from __future__ import annotations

import os
import random
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

import geostore
from geostore.errors import InvalidInputError, UnreadableSourceError
from geostore.scenes import ReadOptions, detect, open_source, reader_named
from geostore.scenes.scene import ReaderFamily
from geostore.types import BandRole, TimeSpan
from tests.hdf_eos import TestGrid, core_metadata, struct_metadata, write_granule

MUTATIONS = int(os.environ.get("HDF_MUTATIONS", "24"))
"""Damaged copies that are tried; by hand some thousands."""

ID = "MOD09GA.A2008296.h14v17.006.2015181011753"
RED = np.arange(60 * 50, dtype=np.int16).reshape(60, 50)
RED[:10] = -28672
STATE = np.arange(30 * 25, dtype=np.uint16).reshape(30, 25)
REFLECTANCE = {
    "_FillValue": -28672,
    "valid_range": [-100, 16000],
    "scale_factor": 10000.0,
    "units": "reflectance",
}
CORE = core_metadata(
    {
        "LOCALGRANULEID": f'"{ID}.hdf"',
        "SHORTNAME": '"MOD09GA"',
        "VERSIONID": "6",
        "DAYNIGHTFLAG": '"Day"',
        "RANGEBEGINNINGDATE": '"2008-10-22"',
        "RANGEBEGINNINGTIME": '"11:55:00.250000"',
        "RANGEENDINGDATE": '"2008-10-22"',
        "RANGEENDINGTIME": '"23:25:00"',
        "ASSOCIATEDPLATFORMSHORTNAME": '"Terra"',
    },
    {"HORIZONTALTILENUMBER": "14", "VERTICALTILENUMBER": "17"},
)
GRIDS = [
    TestGrid(
        "MODIS_Grid_1km_2D",
        {"state_1km_1": (STATE, {"_FillValue": 65535, "units": "bit field"})},
    ),
    TestGrid(
        "MODIS_Grid_500m_2D", {"sur_refl_b01_1": (RED, REFLECTANCE)}, pixel=463.31271652791665
    ),
]


def granule(path: Path, *layers: TestGrid, core: str | None = CORE, **options) -> Path:
    return write_granule(path, list(layers) or GRIDS, core=core, **options)


def one(path: Path, **options):
    (scene,) = open_source(path, **options)
    return scene


def read(band) -> tuple[np.ndarray, np.ndarray | None]:
    return band.source.read(0, 0, band.source.grid.height, band.source.grid.width)


class TestGranules:
    def test_what_it_is(self, tmp_path: Path) -> None:
        with one(granule(tmp_path / "a.hdf")) as scene:
            assert (scene.id, scene.reader, scene.platform) == (ID, "modis-mod09ga", "terra")
            span = TimeSpan.parse("2008-10-22T11:55:00.25Z/2008-10-22T23:25:00Z")
            assert (scene.time_us, scene.time_end_us) == (span.start_us, span.end_us)
            assert scene.properties["tile"] == "h14v17"
            assert scene.properties["collection"] == "6"
            assert scene.properties["valid_ranges"] == {"sur_refl_b01_1": [-100, 16000]}
            assert scene.cloud is not None
            assert scene.cloud.band == "state_1km_1"
            assert "sur_refl_b02_1" in scene.missing
            assert "sur_refl_b01_1" not in scene.missing

    def test_bands_of_two_grids(self, tmp_path: Path) -> None:
        with one(granule(tmp_path / "a.hdf")) as scene:
            state, red = scene.bands
            assert (state.info.name, state.info.dtype) == ("state_1km_1", "uint16")
            assert state.info.native_resolution_m == pytest.approx(926.6254)
            assert state.info.role is BandRole.QUALITY
            assert red.info.native_resolution_m == pytest.approx(463.3127)
            assert scene.band("red") is red
            pixels, valid = read(red)
            np.testing.assert_array_equal(pixels, RED)
            np.testing.assert_array_equal(valid, RED != -28672)
            pixels, valid = read(state)
            np.testing.assert_array_equal(pixels, STATE)
            assert valid is None

    def test_windows(self, tmp_path: Path) -> None:
        with one(granule(tmp_path / "a.hdf")) as scene:
            red = scene.bands[1].source
            pixels, valid = red.read(8, 3, 5, 7)
            np.testing.assert_array_equal(pixels, RED[8:13, 3:10])
            np.testing.assert_array_equal(valid, RED[8:13, 3:10] != -28672)
            pixels[:] = 0  # the caller's own
            np.testing.assert_array_equal(red.read(8, 3, 5, 7)[0], RED[8:13, 3:10])
            for window in ((-1, 0, 1, 1), (0, 0, 61, 1), (0, 49, 1, 2), (0, 0, 0, 1)):
                with pytest.raises(InvalidInputError, match="window"):
                    red.read(*window)

    def test_the_name_of_the_file_says_nothing(self, tmp_path: Path) -> None:
        one_way = granule(tmp_path / "MOD11A1.A2020001.h01v01.tif")
        assert detect(one_way) is not None
        with one(one_way) as scene:
            assert (scene.id, scene.reader) == (ID, "modis-mod09ga")

    def test_text_named_as_a_granule_is_none(self, tmp_path: Path) -> None:
        path = tmp_path / f"{ID}.hdf"
        path.write_text("not HDF")
        assert detect(path) is None

    def test_in_archives(self, tmp_path: Path) -> None:
        path = granule(tmp_path / "a.hdf")
        plain = one(path)
        archive = tmp_path / "a.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
            target.write(path, "folder/a.hdf")
            target.writestr("folder/readme.txt", "words")
        with one(archive) as scene, plain:
            assert (scene.id, scene.fingerprint) == (plain.id, plain.fingerprint)
            path.unlink()
            np.testing.assert_array_equal(read(scene.bands[1])[0], RED)

    def test_several_in_one_archive(self, tmp_path: Path) -> None:
        archive = tmp_path / "a.zip"
        with zipfile.ZipFile(archive, "w") as target:
            for day in ("2008296", "2008297"):
                name = ID.replace("2008296", day)
                core = CORE.replace(ID, name)
                target.write(granule(tmp_path / f"{day}.hdf", core=core), f"{day}.hdf")
        scenes = open_source(archive)
        assert [scene.id for scene in scenes] == [ID, ID.replace("2008296", "2008297")]
        assert not any(scene.bands[0].source._file.children for scene in scenes)
        for scene in scenes:
            np.testing.assert_array_equal(read(scene.bands[1])[0], RED)
            scene.close()

    def test_a_directory_of_granules_is_none(self, tmp_path: Path) -> None:
        granule(tmp_path / "a.hdf")
        assert detect(tmp_path) is None

    def test_children_end_with_the_scene(self, tmp_path: Path) -> None:
        scene = one(granule(tmp_path / "a.hdf"))
        file = scene.bands[0].source._file
        assert file.children
        scene.close()
        assert not file.children
        with pytest.raises(Exception, match="read after close"):
            read(scene.bands[0])


class TestIdentity:
    @pytest.mark.parametrize("name", [f"{ID}.hdf", "renamed.hdf"])
    def test_without_inventory_metadata(self, tmp_path: Path, name: str) -> None:
        """As HEG leaves it: archive metadata only, and the name where it is a granule's."""
        archive = core_metadata(
            {
                "LONGNAME": '"MODIS/Terra Surface Reflectance"',
                "DAYSPROCESSED": '("2008296", "2008297", "2008298")',
            }
        )
        path = granule(tmp_path / name, core=None, attributes={"OldArchiveMetadata.0": archive})
        with one(path) as scene:
            span = TimeSpan.parse("2008-10-22/2008-10-24")
            assert (scene.time_us, scene.time_end_us) == (span.start_us, span.end_us)
            assert scene.platform == "terra"
            if name == "renamed.hdf":
                assert scene.reader == "modis-unknown"
                assert scene.id == f"renamed-{scene.fingerprint[:8]}"
            else:
                assert (scene.id, scene.reader) == (ID, "modis-mod09ga")

    def test_a_name_whose_layers_do_not_agree_is_not_believed(self, tmp_path: Path) -> None:
        path = granule(tmp_path / ID.replace("09GA", "11A1"), core=None)
        with one(path) as scene:
            assert scene.reader == "modis-unknown"

    def test_the_name_gives_the_day_and_the_product_the_period(self, tmp_path: Path) -> None:
        grid = TestGrid("G", {"1 km 16 days NDVI": (RED, {})})
        name = "MYD13A2.A2016145.h18v04.006.2016166145124.hdf"
        with one(granule(tmp_path / name, grid, core=None)) as scene:
            span = TimeSpan.parse("2016-05-24/2016-06-08")
            assert (scene.time_us, scene.time_end_us) == (span.start_us, span.end_us)
            assert (scene.platform, scene.reader) == ("aqua", "modis-myd13a2")

    def test_no_time_is_known_unless_the_caller_says_it(self, tmp_path: Path) -> None:
        path = granule(tmp_path / "a.hdf", core=None)
        with one(path) as scene:
            assert scene.time_us is None
        span = TimeSpan.parse("2020")
        with one(path, options=ReadOptions(time=span)) as scene:
            assert (scene.time_us, scene.time_end_us) == (span.start_us, span.end_us)

    def test_products_of_both_satellites(self, tmp_path: Path) -> None:
        core = CORE.replace("MOD09GA", "MCD43A4")
        with one(granule(tmp_path / "a.hdf", core=core)) as scene:
            assert (scene.reader, scene.platform) == ("modis-mcd43a4", "terra+aqua")

    def test_products_that_are_not_known_here(self, tmp_path: Path) -> None:
        core = CORE.replace('"MOD09GA"', '"AE_DySno"').replace("Terra", "Aqua")
        with one(granule(tmp_path / "a.hdf", core=core)) as scene:
            assert (scene.reader, scene.platform) == ("modis-ae_dysno", "aqua")
            assert (scene.cloud, scene.missing) == (None, ())

    def test_ids_that_cannot_be_are_not_taken(self, tmp_path: Path) -> None:
        core = CORE.replace(f"{ID}.hdf", "../../etc/passwd")
        with one(granule(tmp_path / "a b.hdf", core=core)) as scene:
            assert scene.id == f"a_b-{scene.fingerprint[:8]}"

    def test_times_on_the_edge(self, tmp_path: Path) -> None:
        core = CORE.replace("23:25:00", "24:00:00")
        with one(granule(tmp_path / "a.hdf", core=core)) as scene:
            assert scene.time_end_us == TimeSpan.parse("2008-10-23").start_us
        core = CORE.replace("23:25:00", "01:00:00")  # before it begins
        with one(granule(tmp_path / "b.hdf", core=core)) as scene:
            assert scene.time_end_us == scene.time_us

    @pytest.mark.parametrize("name", ["coremetadata.0", "CoreMetadata", "OldCoreMetadata.0"])
    def test_metadata_by_their_other_names(self, tmp_path: Path, name: str) -> None:
        with one(granule(tmp_path / "a.hdf", core=None, attributes={name: CORE})) as scene:
            assert (scene.id, scene.reader) == (ID, "modis-mod09ga")

    def test_reflectances_adjusted_for_the_view(self, tmp_path: Path) -> None:
        """MCD43A4's layers: its quality is not a measurement, and nothing in it tells cloud."""
        reflectance = {"_FillValue": 32767, "valid_range": [0, 32766], "scale_factor": 0.0001}
        names = [f"Nadir_Reflectance_Band{number}" for number in range(1, 8)]
        layers = dict.fromkeys(names, (RED, reflectance))
        layers["BRDF_Albedo_Band_Mandatory_Quality_Band1"] = (RED, {"_FillValue": 255})
        core = CORE.replace("MOD09GA", "MCD43A4").replace("23:25:00", "23:59:59")
        core = core.replace('"2008-10-22"', '"2008-10-14"', 1)
        path = granule(tmp_path / "a.hdf", TestGrid("MOD_Grid_BRDF", layers), core=core)
        with one(path) as scene:
            assert [band.info.name for band in scene.data_bands] == names
            assert [band.info.common_name for band in scene.data_bands] == [
                *("red", "nir", "blue", "green", None, "swir16", "swir22")
            ]
            assert scene.cloud is None
            span = TimeSpan.parse("2008-10-14T11:55:00.25Z/2008-10-22T23:59:59Z")
            assert (scene.time_us, scene.time_end_us) == (span.start_us, span.end_us)
            valid = read(scene.bands[0])[1]
            np.testing.assert_array_equal(valid, RED >= 0)

    def test_metadata_over_several_attributes(self, tmp_path: Path) -> None:
        text = struct_metadata(GRIDS)
        cut = len(text) // 2
        path = granule(
            tmp_path / "a.hdf", struct=text[:cut], attributes={"StructMetadata.1": text[cut:]}
        )
        with one(path) as scene:
            assert len(scene.bands) == 2


class TestArrays:
    @pytest.mark.parametrize(
        ("dimensions", "axes"),
        [(("Band", "YDim", "XDim"), (0, 1, 2)), (("YDim", "XDim", "Band"), (1, 2, 0))],
    )
    def test_three_dimensions_become_bands(
        self, tmp_path: Path, dimensions: tuple[str, ...], axes: tuple[int, ...]
    ) -> None:
        cube = np.arange(3 * 20 * 30, dtype=np.int16).reshape(3, 20, 30)
        stored = cube if dimensions[0] == "Band" else np.moveaxis(cube, 0, 2)
        grid = TestGrid("G", {"Parameters": (stored, {}, dimensions)})
        with one(granule(tmp_path / "a.hdf", grid)) as scene:
            names = [band.info.name for band in scene.bands]
            assert names == ["Parameters_1", "Parameters_2", "Parameters_3"]
            for band, plane in zip(scene.bands, cube, strict=True):
                np.testing.assert_array_equal(read(band)[0], plane)
                np.testing.assert_array_equal(band.source.read(4, 5, 6, 7)[0], plane[4:10, 5:12])

    def test_columns_before_rows(self, tmp_path: Path) -> None:
        grid = TestGrid("G", {"a": (np.ascontiguousarray(RED.T), {}, ("XDim", "YDim"))})
        with one(granule(tmp_path / "a.hdf", grid)) as scene:
            np.testing.assert_array_equal(read(scene.bands[0])[0], RED)
            np.testing.assert_array_equal(scene.bands[0].source.read(1, 2, 3, 4)[0], RED[1:4, 2:6])

    def test_one_name_in_two_grids(self, tmp_path: Path) -> None:
        grids = [TestGrid("A", {"v": (RED, {})}), TestGrid("B", {"v": (STATE, {})})]
        with one(granule(tmp_path / "a.hdf", *grids)) as scene:
            assert [band.info.name for band in scene.bands] == ["v", "B:v"]
            np.testing.assert_array_equal(read(scene.bands[0])[0], RED)
            np.testing.assert_array_equal(read(scene.bands[1])[0], STATE)

    @pytest.mark.parametrize(
        "dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"]
    )
    def test_every_type_of_number(self, tmp_path: Path, dtype: str) -> None:
        data = np.arange(20 * 6).reshape(20, 6).astype(dtype)
        grid = TestGrid("G", {"v": (data, {"_FillValue": 3})})
        with one(granule(tmp_path / "a.hdf", grid)) as scene:
            pixels, valid = read(scene.bands[0])
            assert pixels.dtype == np.dtype(dtype)
            np.testing.assert_array_equal(pixels, data)
            np.testing.assert_array_equal(valid, data != 3)

    def test_not_a_number(self, tmp_path: Path) -> None:
        data = np.ones((4, 5), np.float32)
        data[1, 2] = np.nan
        with one(granule(tmp_path / "a.hdf", TestGrid("G", {"v": (data, {})}))) as scene:
            np.testing.assert_array_equal(read(scene.bands[0])[1], ~np.isnan(data))

    def test_lists_beside_the_grid_are_passed_over(self, tmp_path: Path) -> None:
        grid = TestGrid(
            "G", {"v": (RED, {}), "v_c": (np.arange(9, dtype=np.int16), {}, ("Additional",))}
        )
        with one(granule(tmp_path / "a.hdf", grid)) as scene:
            assert [band.info.name for band in scene.bands] == ["v"]

    def test_layers_that_the_file_lacks_are_missing(self, tmp_path: Path) -> None:
        grid = TestGrid("G", {"v": (RED, {})}, listed=("w",))
        core = CORE.replace("MOD09GA", "MOD99XX")
        with one(granule(tmp_path / "a.hdf", grid, core=core)) as scene:
            assert scene.missing == ("w",)

    def test_an_array_of_another_size_than_its_grid(self, tmp_path: Path) -> None:
        text = struct_metadata(GRIDS).replace("XDim=50", "XDim=40")
        with pytest.raises(UnreadableSourceError, match=r"sur_refl_b01_1 is 60 x 50.*60 x 40"):
            open_source(granule(tmp_path / "a.hdf", struct=text))

    def test_too_many_bands(self, tmp_path: Path) -> None:
        grid = TestGrid("G", {"v": (np.zeros((1100, 2, 2), np.uint8), {}, ("B", "YDim", "XDim"))})
        with pytest.raises(UnreadableSourceError, match="more than 1024 bands"):
            open_source(granule(tmp_path / "a.hdf", grid))


def test_the_first_pixel_may_lie_in_any_corner(tmp_path: Path) -> None:
    """The same pixels, stored from each of the grid's corners, make the same tiles."""
    store = geostore.open(str(tmp_path / "store"))
    rows = np.random.default_rng(1).integers(1, 30_000, (200, 300)).astype(np.int16)
    tiles = {}
    for corner, data in {
        "UL": rows,
        "UR": rows[:, ::-1],
        "LL": rows[::-1],
        "LR": rows[::-1, ::-1],
    }.items():
        grid = TestGrid(
            "G",
            {"v": (data, {"_FillValue": -1})},
            projection=f"Projection=GCTP_GEO\nGridOrigin=HDFE_GD_{corner}\n",
            corners="UpperLeftPointMtrs=(10.0,50.0)\nLowerRightMtrs=(13.0,48.0)\n",
        )
        path = granule(tmp_path / f"{corner}.hdf", grid, core=None)
        (result,) = store.ingest([path], dataset=corner)
        assert result.error is None
        tiles[corner] = {
            tile.geocode: tile.read(bands=["v"]).data for tile in store.query(dataset=corner)
        }
    assert len(tiles["UL"]) > 1
    for corner in ("UR", "LL", "LR"):
        assert tiles[corner].keys() == tiles["UL"].keys()
        for geocode, data in tiles[corner].items():
            np.testing.assert_array_equal(data, tiles["UL"][geocode])


class TestRefusals:
    def test_swaths(self, tmp_path: Path) -> None:
        swath = 'GROUP=SWATH_1\nSwathName="mod07"\nEND_GROUP=SWATH_1\n'
        path = granule(tmp_path / "a.hdf", struct=struct_metadata([], swath))
        assert detect(path) is not None
        with pytest.raises(UnreadableSourceError, match=r"a\.hdf: an HDF-EOS swath product"):
            open_source(path)

    def test_hdf4_without_eos(self, tmp_path: Path) -> None:
        with pytest.raises(
            UnreadableSourceError, match="without HDF-EOS metadata; expected a grid"
        ):
            open_source(granule(tmp_path / "a.hdf", struct=""))

    def test_a_grid_nowhere(self, tmp_path: Path) -> None:
        text = struct_metadata(GRIDS).replace("GCTP_SNSOID", "GCTP_HOM")
        with pytest.raises(UnreadableSourceError, match=r"a\.hdf: .*projection 'GCTP_HOM'"):
            open_source(granule(tmp_path / "a.hdf", struct=text))

    @pytest.mark.parametrize("size", [4, 100, 2000])
    def test_cut_short(self, tmp_path: Path, size: int) -> None:
        path = granule(tmp_path / "a.hdf")
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(UnreadableSourceError, match=r"a\.hdf"):
            open_source(path)


class TestFamily:
    def test_variants(self) -> None:
        family = reader_named("modis")
        assert isinstance(family, ReaderFamily)
        reader = reader_named("modis-mod09ga")
        assert reader.name == "modis-mod09ga"
        assert reader.defaults.resolutions_m == pytest.approx((463.3127, 926.6254), abs=1e-4)
        assert reader.defaults.lengths == {"geohash": 3, "quadtile": 8}
        assert reader_named("modis-xyz").defaults.resolutions_m is None
        assert family.variant("landsat-c2-l2") is None
        with pytest.raises(InvalidInputError, match="reader 'modis-'"):
            reader_named("modis-")

    def test_another_product_than_asked_for(self, tmp_path: Path) -> None:
        path = granule(tmp_path / "a.hdf")
        one(path, reader="modis-mod09ga").close()
        one(path, reader="modis").close()
        with pytest.raises(UnreadableSourceError, match="product MOD09GA; reader modis-mod11a1"):
            open_source(path, reader="modis-mod11a1")


def damaged_copy(whole: bytes, seed: int) -> bytes:
    chance = random.Random(seed)
    content = bytearray(whole)
    if seed % 4 == 0:
        del content[chance.randrange(4, len(content)) :]
    for _ in range(chance.choice((1, 4, 32))):
        # The directory of the file's parts lies in its first kilobytes: damage it most.
        at = int(len(content) * chance.random() ** 3)
        content[max(4, at) % len(content)] = chance.randrange(256)
    return bytes(content)


def what_happens(path: Path) -> list[str]:
    """The reader's error, or of each band its error or "" where it could be read."""
    try:
        scene = one(path)
    except UnreadableSourceError as error:
        return [str(error)]
    found = []
    with scene:
        for band in scene.bands:
            try:
                pixels, _ = read(band)
            except UnreadableSourceError as error:
                found.append(str(error))
                continue
            assert pixels.shape == (band.source.grid.height, band.source.grid.width)
            found.append("")
    return found


def test_damaged_granules_end_in_an_error_or_a_scene(tmp_path: Path) -> None:
    """Whatever bytes are wrong: no crash, no hang, every answer of the size asked for."""
    whole = granule(tmp_path / "whole.hdf").read_bytes()
    damaged = tmp_path / "damaged.hdf"
    outcomes = []
    for seed in range(MUTATIONS):
        damaged.write_bytes(damaged_copy(whole, seed))
        found = what_happens(damaged)
        assert all(not one or str(damaged) in one for one in found), f"seed {seed}: {found}"
        outcomes.append(any(found))
    assert any(outcomes)
    assert not all(outcomes)


def test_copies_have_one_fingerprint(tmp_path: Path) -> None:
    path = granule(tmp_path / "a.hdf")
    (tmp_path / "b").mkdir()
    copy = shutil.copy(path, tmp_path / "b" / "a.hdf")
    with one(path) as first, one(copy) as second:
        assert first.fingerprint == second.fingerprint
