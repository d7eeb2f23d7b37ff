"""Cloud likelihood for scenes whose product has none: s2cloudless.

s2cloudless (Sentinel Hub; Skakun et al. 2022, "Cloud Mask Intercomparison eXercise") is a
gradient-boosted classifier of single pixels: ten top-of-atmosphere reflectances in, a likelihood
out. Sentinel Hub runs it on pixels of 160 m, and so does this: each band is averaged over cells of
160 m, a granule then takes seconds instead of minutes, and a cloud smaller than that hardly
matters for a tile of kilometres. The likelihood is stored as the classifier gives it, in whole
percent; the averaging and dilation with which the package makes masks of it are not applied.

The averages are of what is stored, weighted by area, and are made of fixed strips of the scene,
so that neither blocks nor threads change a bit of them.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from geostore.errors import InvalidInputError, MissingDependencyError, UnreadableSourceError
from geostore.raster import SourceGrid
from geostore.scenes.scene import Scene, SceneBand
from geostore.types import BandInfo, BandRole, CloudLayer

if TYPE_CHECKING:
    from s2cloudless.cloud_detector import S2PixelCloudDetector

    from geostore.raster import PixelSource

__all__ = [
    "DETECTED_BAND",
    "DETECTORS",
    "CoarseBand",
    "DetectedLikelihood",
    "check_detector",
    "coarse_grid",
    "detect_clouds",
]

_Floats = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]

S2CLOUDLESS = "s2cloudless"
DETECTORS = (S2CLOUDLESS,)
DETECTED_BAND = "S2CLOUDLESS"
THRESHOLD_PERCENT = 50
CELL_M = 160.0
STRIP_CELLS = 64
"""Rows of cells that are made at once: 1024 rows of 10 m pixels, as JPEG 2000 tiles are high."""
CELLS_MAX = 4096
"""A side; a granule has 687. A damaged header may claim anything."""
STRIPS_AT_ONCE_MAX = 4
"""About 40 MB each in a whole granule: 1024 rows of one band at a time, and their validity."""
MEASURED_SHARE_MIN = 0.5
"""A cell less than half of which was measured, in any band, has no likelihood."""

# In the order in which the classifier takes them.
_NEEDED = ("B01", "B02", "B04", "B05", "B08", "B8A", "B09", "B10", "B11", "B12")
_SAME_CORNER_PX = 1e-6


def check_detector(name: str) -> None:
    """Refuse a detector that there is not, or that is not installed, before anything is read.

    Raises:
        InvalidInputError: no such detector.
        MissingDependencyError: its package is absent.
    """
    if name not in DETECTORS:
        raise InvalidInputError(f"clouds {name!r}: expected one of {', '.join(DETECTORS)}")
    _classifier()


@dataclass(frozen=True, slots=True)
class _Classifier:
    """The package's detector and what identifies it."""

    detector: S2PixelCloudDetector
    about: str
    """`s2cloudless 1.7.3`."""

    def percent(self, reflectances: _Floats) -> npt.NDArray[np.uint8]:
        """Likelihoods of pixels (count, 10), in whole percent."""
        # One thread: scenes and blocks are what runs in parallel. ctypes leaves Python's lock.
        likelihood = self.detector.get_cloud_probability_maps(
            reflectances[np.newaxis, np.newaxis], num_threads=1
        )
        percent: npt.NDArray[np.uint8] = np.rint(100.0 * likelihood[0, 0]).astype(np.uint8)
        return percent


_loading = threading.Lock()


@cache
def _load_classifier() -> _Classifier:
    try:
        from s2cloudless.cloud_detector import S2PixelCloudDetector
    except ImportError as error:
        raise MissingDependencyError(
            f"telling clouds by {S2CLOUDLESS} needs the package {error.name or S2CLOUDLESS}:"
            " pip install 'geostore[clouds]'"
        ) from error
    detector = S2PixelCloudDetector(all_bands=False)
    _ = detector.classifier  # the model is read now, by one thread
    return _Classifier(detector, f"{S2CLOUDLESS} {version(S2CLOUDLESS)}")


def _classifier() -> _Classifier:
    with _loading:
        return _load_classifier()


def _pixel_m(grid: SourceGrid) -> float:
    return abs(grid.transform[0])


def coarse_grid(grids: Sequence[SourceGrid], cell_m: float = CELL_M) -> SourceGrid:
    """Cells of `cell_m`, or of the coarsest pixels where those are larger, over all grids.

    The last row and column may reach beyond the image; they are averaged over what lies in it.

    Raises:
        UnreadableSourceError: the grids do not share CRS and corner, have pixels that are not
            square and north-up, or are far larger than a granule.
    """
    first = grids[0]
    for grid in grids:
        a, b, c, d, e, f = grid.transform
        near = _SAME_CORNER_PX * abs(a)
        if (
            grid.crs_wkt != first.crs_wkt
            or b != 0.0
            or d != 0.0
            or not math.isclose(a, -e, rel_tol=1e-9)
            or abs(c - first.transform[2]) > near
            or abs(f - first.transform[5]) > near
        ):
            raise UnreadableSourceError(
                f"bands of {abs(a):g} m from ({c:g}, {f:g}) and of {_pixel_m(first):g} m from"
                f" ({first.transform[2]:g}, {first.transform[5]:g}): expected square pixels,"
                " north up, of one CRS and upper left corner"
            )
    cell = max(cell_m, *(_pixel_m(grid) for grid in grids))
    # Rounding must not make a cell of a sliver of a pixel.
    height = max(math.ceil(grid.height * _pixel_m(grid) / cell - 1e-6) for grid in grids)
    width = max(math.ceil(grid.width * _pixel_m(grid) / cell - 1e-6) for grid in grids)
    if max(height, width) > CELLS_MAX:
        raise UnreadableSourceError(
            f"bands of {width} x {height} cells of {cell:g} m: expected at most {CELLS_MAX} a side"
        )
    return SourceGrid(
        first.crs_wkt,
        (cell, 0.0, first.transform[2], 0.0, -cell, first.transform[5]),
        height,
        width,
        min(height, STRIP_CELLS),
        width,
    )


class CoarseBand:
    """A band's averages over the cells of a coarse grid, strip by strip.

    All weights are areas in metres, whole numbers for real products, so that sums are exact.
    """

    def __init__(self, source: PixelSource, grid: SourceGrid) -> None:
        self._source = source
        self._grid = grid
        self._pixel_m = _pixel_m(source.grid)
        self._cell_m = _pixel_m(grid)

    def strip(self, first: int, last: int) -> tuple[_Floats, _Mask]:
        """Averages (last - first, width) of cell rows, and where enough was measured."""
        pixel, cell, source = self._pixel_m, self._cell_m, self._source.grid
        top = min(int(first * cell // pixel), source.height)
        bottom = min(math.ceil(last * cell / pixel), source.height)
        shape = (last - first, self._grid.width)
        if bottom <= top:
            return np.zeros(shape), np.zeros(shape, bool)
        data, valid = self._source.read(top, 0, bottom - top, source.width)
        sums = np.zeros((last - first, source.width))
        seen = np.zeros((last - first, source.width))
        heights = np.zeros((last - first, 1))
        for row in range(first, last):
            begin = max(int(row * cell // pixel), top)
            end = min(math.ceil((row + 1) * cell / pixel), bottom)
            at = np.arange(begin, end)[:, np.newaxis]
            weights = np.minimum((at + 1) * pixel, (row + 1) * cell) - np.maximum(
                at * pixel, row * cell
            )
            weights = np.maximum(weights, 0.0)
            part = slice(begin - top, end - top)
            heights[row - first] = weights.sum()
            if valid is None:
                sums[row - first] = (data[part] * weights).sum(axis=0)
            else:
                seen_weights = valid[part] * weights
                sums[row - first] = (data[part] * seen_weights).sum(axis=0)
                seen[row - first] = seen_weights.sum(axis=0)
        insides = heights * self._across(np.ones((1, source.width)))
        areas = insides if valid is None else self._across(seen)
        known = (areas >= MEASURED_SHARE_MIN * insides) & (areas > 0.0)
        return np.divide(self._across(sums), areas, out=np.zeros(shape), where=known), known

    def _across(self, rows: _Floats) -> _Floats:
        """Integrals of rows of pixels over the columns of cells."""
        pixel, cell = self._pixel_m, self._cell_m
        columns = rows.shape[1]
        upto = np.zeros((rows.shape[0], columns + 1))
        np.cumsum(rows * pixel, axis=1, out=upto[:, 1:])
        edges = np.arange(self._grid.width + 1) * cell
        whole = np.minimum((edges // pixel).astype(np.intp), columns)
        inside = whole < columns
        rest = np.where(inside, edges - whole * pixel, 0.0)
        at_edges = upto[:, whole] + rest * rows[:, np.where(inside, whole, 0)]
        return np.diff(at_edges, axis=1)


class DetectedLikelihood:
    """The likelihood of cloud as a band, a `PixelSource`, made when it is first read.

    Strips are made once each, by the first thread that needs them, and kept (two bytes a cell).
    """

    dtype = "uint8"
    nodata = None

    def __init__(self, bands: Sequence[SceneBand], path: str, classifier: _Classifier) -> None:
        self.name = f"{path}: {classifier.about}"
        try:
            self.grid = coarse_grid([band.source.grid for band in bands])
        except UnreadableSourceError as error:
            raise UnreadableSourceError(f"{path}: {error}") from error
        self._classifier = classifier
        self._bands = [(band.info, CoarseBand(band.source, self.grid)) for band in bands]
        strips = -(-self.grid.height // STRIP_CELLS)
        self._locks = [threading.Lock() for _ in range(strips)]
        self._strips: dict[int, tuple[npt.NDArray[np.uint8], _Mask]] = {}

    def _prepare(self, numbers: list[int]) -> None:
        """Make several strips side by side: a whole scene may be asked for at once, and every
        cell waits for it.
        """
        threads = min(STRIPS_AT_ONCE_MAX, os.cpu_count() or 1, len(numbers))
        if threads > 1:
            with ThreadPoolExecutor(threads, thread_name_prefix="geostore-clouds") as pool:
                list(pool.map(self._strip, numbers))

    def _strip(self, number: int) -> tuple[npt.NDArray[np.uint8], _Mask]:
        with self._locks[number]:
            if number not in self._strips:
                self._strips[number] = self._make(number)
            return self._strips[number]

    def _make(self, number: int) -> tuple[npt.NDArray[np.uint8], _Mask]:
        first = number * STRIP_CELLS
        last = min(first + STRIP_CELLS, self.grid.height)
        shape = (last - first, self.grid.width)
        reflectances = np.empty((*shape, len(self._bands)))
        known = np.ones(shape, bool)
        for position, (info, band) in enumerate(self._bands):
            stored, measured = band.strip(first, last)
            reflectances[..., position] = stored * info.scale + info.offset
            known &= measured
        percent = np.zeros(shape, np.uint8)
        if known.any():
            percent[known] = self._classifier.percent(reflectances[known])
        return percent, known

    def read(
        self, row: int, column: int, height: int, width: int
    ) -> tuple[npt.NDArray[np.uint8], _Mask | None]:
        """See `PixelSource`."""
        percent = np.empty((height, width), np.uint8)
        known = np.empty((height, width), bool)
        numbers = range(row // STRIP_CELLS, -(-(row + height) // STRIP_CELLS))
        self._prepare([number for number in numbers if number not in self._strips])
        for number in numbers:
            first = number * STRIP_CELLS
            top, bottom = max(row, first), min(row + height, first + STRIP_CELLS)
            here = (slice(top - row, bottom - row), slice(None))
            there = (slice(top - first, bottom - first), slice(column, column + width))
            made = self._strip(number)
            percent[here], known[here] = made[0][there], made[1][there]
        return percent, None if known.all() else known

    def close(self) -> None:
        """The bands that it reads are closed with the scene's others."""
        self._strips.clear()


def detect_clouds(scene: Scene, detector: str) -> Scene:
    """The scene with the band that `detector` makes.

    It tells the scene's clouds where the product has no mask of its own, which stays the
    default: a dataset's cloud rule may take the likelihood instead, tile by tile.

    A scene that lacks one of the ten bands is given back as it is, with a property that says
    which: a detector is asked for whole lists of scenes.

    Raises:
        InvalidInputError, MissingDependencyError: as `check_detector`.
        UnreadableSourceError: the bands' grids do not fit together.
    """
    check_detector(detector)
    if scene.likelihood_band is not None:
        return scene
    bands = [band for name in _NEEDED if (band := scene.band(name)) is not None]
    if len(bands) < len(_NEEDED):
        have = {band.info.name for band in bands}
        lacking = [name for name in _NEEDED if name not in have]
        return replace(
            scene, properties=scene.properties | {"cloud_detector_lacks": ",".join(lacking)}
        )
    classifier = _classifier()
    source = DetectedLikelihood(bands, scene.path, classifier)
    info = BandInfo(
        name=DETECTED_BAND,
        dtype="uint8",
        role=BandRole.LIKELIHOOD,
        unit="percent",
        description=f"cloud likelihood by {classifier.about}",
        native_resolution_m=_pixel_m(source.grid),
    )
    detected = CloudLayer(DETECTED_BAND, "likelihood", frozenset({THRESHOLD_PERCENT}))
    # Tiles with this band are not those without it, nor those of another version of it.
    text = f"{scene.fingerprint}:{classifier.about}:{CELL_M:g}"
    return replace(
        scene,
        bands=(*scene.bands, SceneBand(info, source)),
        cloud=scene.cloud or detected,
        likelihood_band=DETECTED_BAND,
        properties=scene.properties
        | {
            "cloud_detector": classifier.about,
            "cloud_detector_resolution_m": info.native_resolution_m,
        },
        fingerprint=hashlib.sha256(text.encode()).hexdigest(),
    )
