"""Reading bands of raster files through GDAL, hardened against damaged and hostile files.

One place opens raster files for all readers. It sees to four things that bare rasterio does
not: only self-contained local formats are opened (no VRT, no network), no neighbouring file
is looked at (what a scene's fingerprint covers is all that shapes its pixels), every GDAL
error or warning that means lost pixels becomes an `UnreadableSourceError` that names the
file, and handles are pooled, so that any number of threads may read one band at once.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from rasterio._path import _UnparsedPath
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetReader
from rasterio.windows import Window

from geostore.errors import InternalError, InvalidInputError, UnreadableSourceError
from geostore.raster.bounds import is_pixel_interleaved, refuse_absurd_blocks
from geostore.raster.control_points import ControlPoint, fit_control_points
from geostore.raster.imagine import imagine_structure
from geostore.raster.messages import read_checked

__all__ = [
    "BandHeader",
    "PixelSource",
    "RasterBand",
    "RasterFile",
    "RasterHeader",
    "SourceGrid",
    "exact_nodata",
]

# Formats that hold all of themselves in one local file. VRT, WMS and the like, which may
# point anywhere, are never probed, whatever a file's name or first bytes say.
DRIVERS = ("GTiff", "JP2OpenJPEG", "HFA", "NITF", "PNG", "JPEG", "AAIGrid", "USGSDEM", "SRTMHGT")

# Idle handles kept for each file: enough for the threads of one machine, few enough that a
# scene of many bands stays far below common limits on open files.
IDLE_HANDLES_MAX = 8

_warnings_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class SourceGrid:
    """Where the pixels of a band lie.

    `transform` is (a, b, c, d, e, f): x = a*column + b*row + c, y = d*column + e*row + f,
    of a pixel's upper-left corner, in units of the CRS. `crs_wkt` is empty where the file
    states no CRS. Blocks are what the file compresses as one: decode whole ones. Where there
    are control points they place the pixels, and `transform` is only near them, in the
    raster's middle.
    """

    crs_wkt: str
    transform: tuple[float, float, float, float, float, float]
    height: int
    width: int
    block_height: int
    block_width: int
    control: tuple[ControlPoint, ...] = ()

    def check_window(self, name: str, row: int, column: int, height: int, width: int) -> None:
        """Raises InvalidInputError, which names the band's file, unless the window lies inside."""
        if (
            min(row, column) < 0
            or min(height, width) < 1
            or row + height > self.height
            or column + width > self.width
        ):
            raise InvalidInputError(
                f"{name}: window of {height} x {width} pixels at row {row}, column"
                f" {column} does not lie inside {self.height} x {self.width}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class BandHeader:
    """What a file says of one of its bands."""

    dtype: str
    nodata: float | int | None
    block_height: int
    block_width: int
    color: str
    """GDAL's colour interpretation: `red`, `gray`, `palette`, `alpha`, `undefined`, ..."""
    has_mask: bool
    """A mask other than nodata (internal mask, alpha band, NODATA_VALUES) covers the band."""
    scale: float
    offset: float
    unit: str | None
    description: str | None
    tags: dict[str, str]
    palette: dict[int, tuple[int, int, int, int]] = field(default_factory=dict)
    """Red, green, blue and alpha by stored number, of a band with a colour table."""
    class_names: dict[int, str] = field(default_factory=dict)
    """What a stored number means, where the file says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RasterHeader:
    """What a raster file says of itself before any pixel is read."""

    driver: str
    crs_wkt: str
    transform: tuple[float, float, float, float, float, float]
    has_transform: bool
    has_gcps: bool
    has_rpcs: bool
    height: int
    width: int
    bands: tuple[BandHeader, ...]
    is_pixel_interleaved: bool = False
    """Whether a block holds all bands' pixels, so that decoding one decodes all."""
    tags: dict[str, str] = field(default_factory=dict)
    control: tuple[ControlPoint, ...] = ()
    """The ground control points, where nothing else places the raster; in `crs_wkt`."""


def exact_nodata(value: float | int | None, dtype: str) -> float | int | None:
    """`value` as a band of `dtype` can hold it; None where no pixel could ever equal it."""
    if value is None:
        return None
    kind = np.dtype(dtype)
    if kind.kind == "f":
        with np.errstate(over="ignore"):
            held = float(kind.type(value))
        # A float64 number that float32 overflows to infinity was never a pixel's value.
        return None if np.isinf(held) and not np.isinf(float(value)) else held
    if isinstance(value, float) and not value.is_integer():
        return None  # fractions, NaN and infinities
    limits = np.iinfo(kind)
    number = int(value)
    return number if limits.min <= number <= limits.max else None


def _band_header(dataset: Any, index: int, class_names: dict[int, str]) -> BandHeader:
    dtype = str(dataset.dtypes[index])
    flags = dataset.mask_flag_enums[index]
    color = ColorInterp(dataset.colorinterp[index]).name
    has_alpha = ColorInterp.alpha in dataset.colorinterp and color != "alpha"
    block_height, block_width = dataset.block_shapes[index]
    nodata = dataset.nodatavals[index]
    return BandHeader(
        dtype=dtype,
        nodata=nodata if dtype.startswith("complex") else exact_nodata(nodata, dtype),
        block_height=min(int(block_height), int(dataset.height)),
        block_width=min(int(block_width), int(dataset.width)),
        color=color,
        has_mask=has_alpha or MaskFlags.per_dataset in flags,
        scale=float(dataset.scales[index]),
        offset=float(dataset.offsets[index]),
        unit=dataset.units[index] or None,
        description=dataset.descriptions[index] or None,
        tags=dict(dataset.tags(index + 1)),
        palette=_palette(dataset, index + 1) if color == "palette" else {},
        class_names=class_names,
    )


def _palette(dataset: Any, band: int) -> dict[int, tuple[int, int, int, int]]:
    try:
        return dict(dataset.colormap(band))
    except ValueError:  # called a palette by its file, which has none
        return {}


def _own_files_only(dataset: Any, path: str, companions: Iterable[str]) -> None:
    """An Imagine file names the file that holds its pixels: any on this machine, if need be.

    GDAL's own list is asked, so that what counts is what GDAL would open.
    """
    strange = sorted(set(dataset.files) - {path, *companions})
    if strange:
        raise OSError(
            f"its pixels lie in another file, {PurePath(strange[0]).name[:200]!r};"
            " expected that file beside it"
        )


def _raster_header(dataset: Any, path: str, *, is_placed: bool) -> RasterHeader:
    structure = None
    if dataset.driver == "HFA" and not path.startswith("/vsi"):
        structure = imagine_structure(path)
    names = structure.class_names if structure is not None else ()
    gcps, gcps_crs = dataset.gcps
    # GDAL may have a part of a damaged transform, and say that it has none.
    has_transform = is_placed and not dataset.transform.is_identity
    placed_by_gcps = bool(gcps) and not has_transform
    crs = gcps_crs if placed_by_gcps else dataset.crs
    transform = tuple(float(value) for value in dataset.transform[:6])
    return RasterHeader(
        driver=dataset.driver,
        crs_wkt=crs.to_wkt() if crs else "",
        transform=transform,  # type: ignore[arg-type]  # six by slicing
        has_transform=has_transform,
        has_gcps=bool(gcps),
        has_rpcs=dataset.rpcs is not None,
        height=int(dataset.height),
        width=int(dataset.width),
        bands=tuple(
            _band_header(dataset, index, names[index] if index < len(names) else {})
            for index in range(dataset.count)
        ),
        is_pixel_interleaved=is_pixel_interleaved(dataset),
        tags=dict(dataset.tags()),
        control=tuple(
            ControlPoint(float(p.col), float(p.row), float(p.x), float(p.y)) for p in gcps
        )
        if placed_by_gcps
        else (),
    )


class RasterFile:
    """One raster file with a pool of open handles; safe to share between threads.

    Bands of one file should share one RasterFile: pixel-interleaved files then decode each
    block once for all bands. The file is closed when every `RasterBand` on it is closed and
    whoever made it has called `close`.

    Args:
        path: local path, or a GDAL path made by geostore itself; opened as it is.
        name: the file as the user knows it, for messages; `path` unless given.
        localize: called once, before the first pixel is read, for a path that is good for
            many random reads (an archive's member is inflated then, not for its header).
        on_close: called once, after the last handle is closed.
        companions: other files that this one may draw pixels from (the `.ige` of an `.img`).

    Raises:
        UnreadableSourceError: GDAL cannot open it as one of `DRIVERS`, or its pixels lie in a
            file that is none of `companions`.
    """

    def __init__(
        self,
        path: str,
        *,
        name: str | None = None,
        localize: Callable[[], str] | None = None,
        on_close: Callable[[], None] | None = None,
        companions: Iterable[str] = (),
    ) -> None:
        self.name = name or path
        self._path = path
        self._localize = localize
        self._on_close = on_close
        self._lock = threading.Lock()
        self._localize_lock = threading.Lock()
        self._idle: list[Any] = []
        self._users = 1
        self._warns = True
        self._is_placed = True
        with read_checked(self.name, "open the file"):
            dataset = self._open(path)
            try:
                if dataset.driver == "HFA":
                    _own_files_only(dataset, path, companions)
                refuse_absurd_blocks(dataset, path, self.name)
                self.header = _raster_header(dataset, path, is_placed=self._is_placed)
            finally:
                dataset.close()
        if self.header.height < 1 or self.header.width < 1 or not self.header.bands:
            raise UnreadableSourceError(
                f"{self.name}: {self.header.width} x {self.header.height} pixels in"
                f" {len(self.header.bands)} bands: expected at least one of each"
            )
        self._warns = not self.header.has_transform

    def _open(self, path: str) -> Any:
        # rasterio.open takes one driver only and reads meaning into paths ("?", "zip://").
        if not self._warns:
            return DatasetReader(_UnparsedPath(path), driver=list(DRIVERS), sharing=False)
        # rasterio warns of files without a transform; readers refuse those with a message of
        # their own. Filters are global, hence the lock; files with a transform skip this.
        with _warnings_lock, warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", NotGeoreferencedWarning)
            dataset = DatasetReader(_UnparsedPath(path), driver=list(DRIVERS), sharing=False)
        for one in caught:
            if issubclass(one.category, NotGeoreferencedWarning):
                self._is_placed = False
            else:  # another thread's
                warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
        return dataset

    def _pixel_path(self) -> str:
        with self._localize_lock:
            if self._localize is not None:
                self._path = self._localize()
                self._localize = None
            return self._path

    @contextmanager
    def handle(self) -> Iterator[Any]:
        """A `rasterio.DatasetReader` that no other thread uses meanwhile."""
        with self._lock:
            if self._users < 1:
                raise InternalError(f"{self.name}: read after close")
            dataset = self._idle.pop() if self._idle else None
        if dataset is None:
            dataset = self._open(self._pixel_path())
        try:
            yield dataset
        except BaseException:
            # After an error GDAL's state for this file is anyone's guess: do not pool it.
            dataset.close()
            raise
        with self._lock:
            if self._users > 0 and len(self._idle) < IDLE_HANDLES_MAX:
                self._idle.append(dataset)
                return
        dataset.close()

    def retain(self) -> None:
        """One more user; each calls `close` once."""
        with self._lock:
            if self._users < 1:
                raise InternalError(f"{self.name}: used after close")
            self._users += 1

    def close(self) -> None:
        """One user less; the last one closes all handles."""
        with self._lock:
            self._users -= 1
            if self._users > 0:
                return
            idle, self._idle = self._idle, []
            on_close, self._on_close = self._on_close, None
        for dataset in idle:
            dataset.close()
        if on_close is not None:
            on_close()


class PixelSource(Protocol):
    """What ingest reads a band's pixels from: a raster file's band, or a reader's own.

    `grid` says where the pixels lie, `dtype` is numpy's name for their type, `nodata` the
    stored value that means none.
    """

    @property
    def name(self) -> str:
        """The file as the user knows it, for messages."""
        ...

    @property
    def grid(self) -> SourceGrid: ...

    @property
    def dtype(self) -> str: ...

    @property
    def nodata(self) -> float | int | None: ...

    def read(
        self, row: int, column: int, height: int, width: int
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]:
        """Pixels (height, width) of a window, and where they are valid; None: all are.

        Called by several threads at once; the caller owns the arrays.

        Raises:
            UnreadableSourceError: the source failed, or lost pixels on the way.
        """
        ...

    def close(self) -> None:
        """Give back what is held; calling twice is harmless."""


class RasterBand:
    """One band of one raster file, a `PixelSource`.

    Args:
        source: a local path, or a RasterFile that several bands share.
        band: 1 for the first.
        nodata: replaces what the file says; None keeps the file's.
        ignore_mask: do not consult the file's mask or alpha band.
        mask_band: a band on the same grid whose invalid pixels are invalid here too (a
            Sentinel-2 probability has no nodata of its own; the scene class band has).
            Closed with this one.
        name: the band's file as the user knows it, for messages.

    Raises:
        UnreadableSourceError: the file cannot be opened or lacks the band.
        InvalidInputError: complex numbers, or `mask_band` on another grid.
    """

    def __init__(
        self,
        source: str | RasterFile,
        band: int = 1,
        *,
        nodata: float | int | None = None,
        ignore_mask: bool = False,
        mask_band: RasterBand | None = None,
        name: str | None = None,
    ) -> None:
        file = RasterFile(source, name=name) if isinstance(source, str) else source
        if isinstance(source, RasterFile):
            file.retain()
        self._file = file
        self._closed = False
        self._mask_band = mask_band
        self.band = band
        try:
            self._describe(nodata, ignore_mask, mask_band)
        except BaseException:
            self.close()
            raise

    def _describe(
        self, nodata: float | int | None, ignore_mask: bool, mask_band: RasterBand | None
    ) -> None:
        header = self._file.header
        if not 1 <= self.band <= len(header.bands):
            raise UnreadableSourceError(
                f"{self.name}: no band {self.band}; the file has {len(header.bands)}"
            )
        about = header.bands[self.band - 1]
        if np.dtype(about.dtype).kind not in "iuf":
            raise InvalidInputError(
                f"{self.name}: band {self.band} has dtype {about.dtype}; expected integers"
                " or real floating-point numbers"
            )
        self.header = about
        self.dtype = about.dtype
        self.nodata = about.nodata if nodata is None else exact_nodata(nodata, about.dtype)
        self.grid = SourceGrid(
            header.crs_wkt,
            _near_transform(header, self.name),
            header.height,
            header.width,
            about.block_height,
            about.block_width,
            header.control,
        )
        self._has_mask = about.has_mask and not ignore_mask
        colors = [one.color for one in header.bands]
        self._alpha = colors.index("alpha") + 1 if "alpha" in colors else None
        if mask_band is not None and (
            (mask_band.grid.height, mask_band.grid.width, mask_band.grid.transform)
            != (self.grid.height, self.grid.width, self.grid.transform)
        ):
            raise InvalidInputError(f"{self.name}: its mask {mask_band.name} lies on another grid")

    @property
    def name(self) -> str:
        """The file as the user knows it."""
        return self._file.name

    def read(
        self, row: int, column: int, height: int, width: int
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]:
        """Pixels of a window, and which of them are valid.

        Thread-safe. Returns data (height, width) in `dtype`, owned by the caller, and a
        boolean array of the same shape, True where valid, or None when all are. A pixel is
        valid unless it equals nodata, is NaN, or is masked out by the file.

        Raises:
            InvalidInputError: the window does not lie inside the band.
            UnreadableSourceError: GDAL failed, or lost pixels on the way.
        """
        window = self._window(row, column, height, width)
        doing = f"read band {self.band}, rows {row}..{row + height - 1}"
        with read_checked(self.name, doing), self._file.handle() as dataset:
            data: npt.NDArray[Any] = dataset.read(self.band, window=window)
            valid = self._file_mask(dataset, window)
        return data, self._validity(data, valid, row, column)

    def _validity(
        self, data: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | None, row: int, column: int
    ) -> npt.NDArray[np.bool_] | None:
        """Where pixels are valid by all that tells; `valid` is what the file's mask says."""
        valid = _both(valid, _valid_values(data, self.nodata))
        if self._mask_band is not None:
            valid = _both(valid, self._mask_band.read(row, column, *data.shape)[1])
        return None if valid is None or valid.all() else valid

    def _window(self, row: int, column: int, height: int, width: int) -> Window:
        self.grid.check_window(self.name, row, column, height, width)
        return Window(column, row, width, height)

    @property
    def stack(self) -> object | None:
        """The same object for bands whose blocks are decoded as one: `read_stack` reads them.

        So it is in pixel-interleaved files, where each band alone costs as much as all.
        """
        header = self._file.header
        dtypes = {band.dtype for band in header.bands}
        return self._file if header.is_pixel_interleaved and len(dtypes) == 1 else None

    @staticmethod
    def read_stack(
        bands: Sequence[RasterBand], row: int, column: int, height: int, width: int
    ) -> list[tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]]:
        """`read` of several bands of one stack, their blocks decoded once.

        The pixels of all are one array's, which lives as long as any of them.
        """
        first = bands[0]
        window = first._window(row, column, height, width)  # noqa: SLF001 - its own class
        doing = f"read {len(bands)} bands, rows {row}..{row + height - 1}"
        with read_checked(first.name, doing), first._file.handle() as dataset:  # noqa: SLF001
            together = dataset.read([band.band for band in bands], window=window)
            masks = [band._file_mask(dataset, window) for band in bands]  # noqa: SLF001
        return [
            (data, band._validity(data, mask, row, column))  # noqa: SLF001
            for band, data, mask in zip(bands, together, masks, strict=True)
        ]

    def _file_mask(self, dataset: Any, window: Window) -> npt.NDArray[np.bool_] | None:
        if not self._has_mask:
            return None
        valid = None
        if MaskFlags.per_dataset in dataset.mask_flag_enums[self.band - 1]:
            valid = dataset.read_masks(self.band, window=window) != 0
        if self._alpha is not None:
            # GDAL drops the alpha band as a mask where there is a nodata value as well.
            valid = _both(valid, dataset.read(self._alpha, window=window) != 0)
        return valid

    def close(self) -> None:
        """Give the file back; reading afterwards is an error. Calling twice is harmless."""
        if not self._closed:
            self._closed = True
            self._file.close()
            if self._mask_band is not None:
                self._mask_band.close()


def _near_transform(
    header: RasterHeader, name: str
) -> tuple[float, float, float, float, float, float]:
    """The file's transform, or the one nearest to what its control points say."""
    if not (header.control and header.crs_wkt):
        return header.transform
    try:
        fit = fit_control_points(header.control, header.crs_wkt, header.height, header.width)
    except UnreadableSourceError as error:
        raise UnreadableSourceError(f"{name}: {error}") from error
    return fit.transform


def _valid_values(
    data: npt.NDArray[Any], nodata: float | int | None
) -> npt.NDArray[np.bool_] | None:
    valid: npt.NDArray[np.bool_] | None = None
    if data.dtype.kind == "f":
        valid = ~np.isnan(data)
        if nodata is not None and not np.isnan(nodata):
            valid &= data != data.dtype.type(nodata)
    elif nodata is not None:
        valid = data != data.dtype.type(nodata)
    return valid


def _both(
    one: npt.NDArray[np.bool_] | None, other: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.bool_] | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other
