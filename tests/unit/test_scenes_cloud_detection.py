"""s2cloudless at ingest: averages over cells, likelihoods equal to the package's own."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from geostore.errors import InvalidInputError, MissingDependencyError, UnreadableSourceError
from geostore.grid import make_groups
from geostore.ingest.partition import ChunkPixels, describe_cell, warp_cell
from geostore.ingest.plan import plan_scene
from geostore.raster import SourceGrid
from geostore.scenes import ReadOptions, Scene, SceneBand, cloud_detection, open_source
from geostore.scenes.cloud_detection import CoarseBand, coarse_grid, detect_clouds
from geostore.types import BandInfo, BandRole, CloudLayer, DatasetDefinition
from tests.sentinel2_products import Safe, offsets, write_jp2

NEEDED = ["B01", "B02", "B04", "B05", "B08", "B8A", "B09", "B10", "B11", "B12"]
UNUSED = ["B03", "B06", "B07"]
PIXEL_M = dict.fromkeys(NEEDED, 20) | dict.fromkeys(["B02", "B04", "B08"], 10)
PIXEL_M |= dict.fromkeys(["B01", "B09", "B10"], 60)
SIDE_M = 12_000
"""75 cells of 160 m: two strips."""


class Pixels:
    """A `PixelSource` of an array."""

    dtype = "uint16"
    nodata = 0
    name = "array"

    def __init__(self, data: npt.NDArray[np.uint16], pixel_m: float, left: float = 0.0) -> None:
        self.data = data
        self.windows: list[tuple[int, int, int, int]] = []
        self.grid = SourceGrid(
            "", (pixel_m, 0.0, left, 0.0, -pixel_m, 0.0), *data.shape, *data.shape
        )

    def read(self, row, column, height, width):
        self.windows.append((row, column, height, width))
        data = self.data[row : row + height, column : column + width].copy()
        valid = data != 0
        return data, None if valid.all() else valid

    def close(self) -> None:
        pass


def scene_of(bands: dict[str, Pixels], offset: float = 0.0) -> Scene:
    return Scene(
        id="S2A_X",
        reader="sentinel-2-l1c",
        path="X.SAFE",
        time_us=0,
        time_end_us=0,
        platform="sentinel-2a",
        bands=tuple(
            SceneBand(
                BandInfo(name=name, dtype="uint16", nodata=0, scale=1e-4, offset=offset), source
            )
            for name, source in bands.items()
        ),
        fingerprint="f" * 64,
    )


def made_up(seed: int = 5, add: int = 0, side_m: int = SIDE_M) -> dict[str, Pixels]:
    """Reflectances that vary over hundreds of metres: dark land and bright patches."""
    bands = {}
    for name in NEEDED:
        size = PIXEL_M[name]
        rows, columns = np.indices((side_m // size, side_m // size)) * size
        patches = np.sin(rows / 700 + seed) * np.cos(columns / 900)
        noise = np.random.default_rng(seed).integers(0, 300, patches.shape)
        cloud = np.clip(patches * 8000, 0, 8000)
        if name == "B10":
            cloud = cloud / 20
        bands[name] = Pixels((300 + cloud + noise + add).astype("uint16"), size)
    return bands


def averages(bands: dict[str, Pixels]) -> npt.NDArray[np.float64]:
    """Cells of 160 m by another way: pixels of 60 m cut in nine, blocks of 8 x 8 of 20 m."""
    means = []
    for name in NEEDED:
        data = bands[name].data.astype("int64")
        if PIXEL_M[name] == 60:
            data = np.kron(data, np.ones((3, 3), "int64"))
        step = 16 if PIXEL_M[name] == 10 else 8
        side = data.shape[0] // step
        means.append(
            data.reshape(side, step, side, step).transpose(0, 2, 1, 3).reshape(side, side, -1)
        )
    return np.stack([mean.mean(axis=-1) for mean in means], axis=-1)


def likelihood(scene: Scene) -> npt.NDArray[np.uint8]:
    band = scene.band("S2CLOUDLESS")
    assert band is not None
    data, valid = band.source.read(0, 0, band.source.grid.height, band.source.grid.width)
    assert valid is None
    return data


def by_the_package(reflectances: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    from s2cloudless.cloud_detector import S2PixelCloudDetector

    likelihoods = S2PixelCloudDetector(all_bands=False).get_cloud_probability_maps(
        reflectances[np.newaxis]
    )
    return np.rint(100 * likelihoods[0]).astype(np.uint8)


class TestAverages:
    @pytest.mark.parametrize("size", [10, 20, 60])
    def test_of_every_pixel_size_are_exact(self, size: int) -> None:
        data = np.random.default_rng(size).integers(1, 65535, (4800 // size, 9600 // size))
        band = Pixels(data.astype("uint16"), size)
        grid = coarse_grid([band.grid])
        assert (grid.height, grid.width, grid.transform[0]) == (30, 60, 160.0)
        stored, known = CoarseBand(band, grid).strip(0, 30)
        fine = np.kron(data, np.ones((size // 10, size // 10), int))
        expected = fine.reshape(30, 16, 60, 16).mean(axis=(1, 3))
        np.testing.assert_array_equal(stored, expected)
        assert known.all()
        # Any strip has the same numbers, and reads no more rows than it needs.
        band.windows.clear()
        np.testing.assert_array_equal(CoarseBand(band, grid).strip(7, 9)[0], expected[7:9])
        ((row, column, height, width),) = band.windows
        assert (column, width) == (0, 9600 // size)
        assert row * size <= 7 * 160
        assert 9 * 160 <= (row + height) * size < 9 * 160 + size

    def test_the_last_cells_are_of_what_there_is(self) -> None:
        """109,800 m, a granule's side, are 686.25 cells."""
        data = np.arange(100, 100 + 21 * 27, dtype="uint16").reshape(21, 27)
        band = Pixels(data, 20)
        grid = coarse_grid([band.grid])
        assert (grid.height, grid.width) == (3, 4)
        stored, known = CoarseBand(band, grid).strip(0, 3)
        assert known.all()
        assert stored[2, 3] == data[16:21, 24:27].mean()

    def test_pixels_that_do_not_divide_a_cell(self) -> None:
        """Repackaged products have any pixel size: 439 pixels where 10,980 were."""
        fine = np.random.default_rng(2).integers(1, 9000, (439, 439)).astype("uint16")
        band = Pixels(fine, 109_800 / 439)
        coarse = Pixels(np.ones((73, 73), "uint16"), 109_800 / 73)
        grid = coarse_grid([band.grid, coarse.grid])
        assert (grid.height, grid.width) == (73, 73)
        stored, known = CoarseBand(band, grid).strip(0, 73)
        assert known.all()
        # Each pixel cut in 73, each cell 439 of those a side.
        cut = np.repeat(fine.astype(float), 73, axis=0).reshape(73, 439, 439).mean(axis=1)
        cut = np.repeat(cut, 73, axis=1).reshape(73, 73, 439).mean(axis=2)
        np.testing.assert_allclose(stored, cut, rtol=1e-9)

    def test_what_was_not_measured_has_no_weight(self) -> None:
        data = np.full((16, 48), 1000, "uint16")
        data[:, :5] = 0
        data[:, 16:25] = 0
        data[3, 32] = 0
        data[:, 40:] = 3000
        stored, known = CoarseBand(Pixels(data, 10), coarse_grid([Pixels(data, 10).grid])).strip(
            0, 1
        )
        assert known.tolist() == [[True, False, True]]
        assert stored[0, 0] == 1000
        assert stored[0, 2] == (1000 * 127 + 3000 * 128) / 255

    @pytest.mark.parametrize(
        ("left", "transform"),
        [(10.0, None), (0.0, (20.0, 1.0, 0.0, 0.0, -20.0, 0.0)), (0.0, (20.0, 0, 0, 0, -30.0, 0))],
    )
    def test_grids_that_do_not_fit_together(self, left: float, transform) -> None:
        other = Pixels(np.ones((8, 8), "uint16"), 20, left=left)
        if transform is not None:
            other.grid = replace(other.grid, transform=transform)
        bands = made_up() | {"B12": other}
        with pytest.raises(UnreadableSourceError, match=r"X\.SAFE: bands of 20 m from"):
            detect_clouds(scene_of(bands), "s2cloudless")

    def test_grids_of_an_absurd_size(self) -> None:
        """As a damaged header may state one."""
        bands = made_up()
        bands["B12"].grid = replace(bands["B12"].grid, width=1 << 30)
        with pytest.raises(UnreadableSourceError, match="expected at most 4096 a side"):
            detect_clouds(scene_of(bands), "s2cloudless")


class TestLikelihood:
    def test_is_the_packages_own_at_its_resolution(self) -> None:
        bands = made_up()
        ours = likelihood(detect_clouds(scene_of(bands), "s2cloudless"))
        theirs = by_the_package(averages(bands) * 1e-4)
        np.testing.assert_array_equal(ours, theirs)
        assert (theirs >= 50).any()
        assert (theirs < 50).any()

    def test_the_offset_is_taken_off(self) -> None:
        plain = likelihood(detect_clouds(scene_of(made_up()), "s2cloudless"))
        shifted = scene_of(made_up(add=1000), offset=-0.1)
        raised = likelihood(detect_clouds(shifted, "s2cloudless"))
        # The same reflectances, but for the last bit of a floating-point number.
        assert (plain != raised).mean() < 1e-3
        unaware = likelihood(detect_clouds(scene_of(made_up(add=1000)), "s2cloudless"))
        assert (plain != unaware).mean() > 0.1

    def test_depends_on_neither_windows_nor_threads(self) -> None:
        scene = detect_clouds(scene_of(made_up()), "s2cloudless")
        whole = likelihood(scene)
        again = detect_clouds(scene_of(made_up()), "s2cloudless").bands[-1].source
        windows = [(r, c, min(11, 75 - r), min(17, 75 - c)) for r in range(0, 75, 11)
                   for c in range(0, 75, 17)]  # fmt: skip
        with ThreadPoolExecutor(4) as pool:
            parts = list(pool.map(lambda window: again.read(*window)[0], reversed(windows)))
        for (row, column, height, width), part in zip(reversed(windows), parts, strict=True):
            np.testing.assert_array_equal(part, whole[row : row + height, column : column + width])

    def test_each_band_is_read_once(self) -> None:
        bands = made_up()
        scene = detect_clouds(scene_of(bands), "s2cloudless")
        assert all(not band.windows for band in bands.values())
        for _ in range(2):
            likelihood(scene)
        assert {len(band.windows) for band in bands.values()} == {2}  # two strips

    def test_a_band_that_cannot_be_read_fails_it(self) -> None:
        bands = made_up()
        source = detect_clouds(scene_of(bands), "s2cloudless").bands[-1].source

        def fail(*window: int):
            raise UnreadableSourceError("B09.jp2: cut short")

        whole, bands["B09"].read = bands["B09"].read, fail
        for rows in (75, 5):  # of both strips side by side, of one alone
            with pytest.raises(UnreadableSourceError, match=r"B09\.jp2: cut short"):
                source.read(0, 0, rows, 75)
        bands["B09"].read = whole
        assert source.read(0, 0, 75, 75)[1] is None

    def test_is_unknown_where_any_band_is(self) -> None:
        bands = made_up()
        bands["B10"].data[:60, :] = 0
        bands["B02"].data[:, -320:] = 0
        source = detect_clouds(scene_of(bands), "s2cloudless").bands[-1].source
        percent, valid = source.read(0, 0, 75, 75)
        assert valid is not None
        # 3600 m are 22.5 cells: half of a cell is enough.
        assert not valid[:22].any()
        assert not valid[:, -20:].any()
        assert valid[22:, :-20].all()
        assert not percent[~valid].any()

    def test_of_a_scene_of_the_l1c_reader(self, tmp_path: Path) -> None:
        safe = Safe(tmp_path, baseline="0400", characteristics=offsets("RADIO_ADD_OFFSET"))
        bands = made_up(add=1000, side_m=4800)
        safe.metadata()
        for name, pixels in bands.items():
            write_jp2(safe.band_path(name), pixels.data, PIXEL_M[name])
        with (scene := open_source(safe.path)[0]):
            assert (scene.cloud, scene.likelihood_band) == (None, None)
        (told,) = open_source(safe.path, options=ReadOptions(clouds="s2cloudless"))
        with told:
            assert told.cloud == CloudLayer("S2CLOUDLESS", "likelihood", frozenset({50}))
            assert told.cloud.method == "S2CLOUDLESS >= 50"
            assert told.likelihood_band == "S2CLOUDLESS"
            assert told.missing == tuple(UNUSED)
            band = told.bands[-1]
            assert (band.info.role, band.info.dtype) == (BandRole.LIKELIHOOD, "uint8")
            assert (band.info.nodata, band.info.native_resolution_m) == (None, 160.0)
            assert told.properties["cloud_detector"].startswith("s2cloudless 1.")
            assert told.properties["cloud_detector_resolution_m"] == 160.0
            # Tiles that carry a likelihood are another version of the scene.
            assert told.fingerprint != scene.fingerprint
            expected = by_the_package(averages(bands) * 1e-4 - 0.1)
            np.testing.assert_array_equal(likelihood(told), expected)
            self._check_tiles(told, expected)

    def _check_tiles(self, scene: Scene, expected: npt.NDArray[np.uint8]) -> None:
        """The histogram and cloud cover of tiles, against counts over the whole scene."""
        definition = DatasetDefinition(
            id="0" * 32,
            name="s2",
            scheme="geohash",
            length=5,
            placement=5,
            groups=make_groups("geohash", 5, (10.0, 20.0, 60.0)),
        )
        plan = plan_scene(scene, definition)
        histogram = np.zeros(101)
        cloudy = total = 0.0
        for cell in plan.cells:
            chunks = {}
            for chunk in plan.chunks(cell):
                window = chunk.window
                source = plan.bands[chunk.band].band.source
                chunks[chunk] = ChunkPixels(
                    *source.read(window.row, window.column, window.height, window.width)
                )
            meta = describe_cell(plan, cell, warp_cell(plan, cell, chunks))
            if meta is None or meta.cloud_histogram is None or not sum(meta.cloud_histogram):
                continue
            counts = np.asarray(meta.cloud_histogram)
            assert counts.shape == (101,)
            assert meta.cloud_method == "S2CLOUDLESS >= 50"
            share = 100 * counts[50:].sum() / counts.sum()
            assert meta.cloud_cover == pytest.approx(share, abs=1e-4)
            assert meta.properties["cloud_detector"].startswith("s2cloudless")
            histogram += counts
            cloudy, total = cloudy + counts[50:].sum(), total + counts.sum()
        assert cloudy / total == pytest.approx((expected >= 50).mean(), abs=0.02)
        assert set(np.flatnonzero(histogram)) <= set(np.unique(expected))


class TestWhatItNeeds:
    def test_a_scene_without_the_bands_is_left_as_it_is(self) -> None:
        bands = {name: band for name, band in made_up().items() if name not in ("B09", "B10")}
        before = scene_of(bands)
        scene = detect_clouds(before, "s2cloudless")
        assert (scene.cloud, scene.likelihood_band) == (None, None)
        assert scene.properties == {"cloud_detector_lacks": "B09,B10"}
        assert (scene.bands, scene.fingerprint) == (before.bands, before.fingerprint)

    def test_a_products_own_mask_stays_the_default(self) -> None:
        """A dataset's rule may take the likelihood instead: tiles have its histogram."""
        own = CloudLayer.parse("CLASSI bits 0,1")
        scene = detect_clouds(replace(scene_of(made_up()), cloud=own), "s2cloudless")
        assert scene.cloud == own
        assert scene.likelihood_band == "S2CLOUDLESS"
        assert scene.bands[-1].info.name == "S2CLOUDLESS"

    def test_a_product_with_a_likelihood_of_its_own_keeps_it(self) -> None:
        before = replace(scene_of(made_up()), likelihood_band="CLDPRB")
        assert detect_clouds(before, "s2cloudless") is before

    def test_no_such_detector(self, tmp_path: Path) -> None:
        safe = Safe(tmp_path).metadata().l1c(["B01"])
        with pytest.raises(InvalidInputError, match="clouds 'fmask': expected one of s2cloudless"):
            open_source(safe.path, options=ReadOptions(clouds="fmask"))

    def test_no_package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        cloud_detection._load_classifier.cache_clear()
        for name in [name for name in sys.modules if name.split(".")[0] == "s2cloudless"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "s2cloudless", None)
        safe = Safe(tmp_path).metadata().l1c(["B01"])
        with pytest.raises(MissingDependencyError, match=r"pip install 'geostore\[clouds\]'"):
            open_source(safe.path, options=ReadOptions(clouds="s2cloudless"))
        open_source(safe.path)[0].close()
