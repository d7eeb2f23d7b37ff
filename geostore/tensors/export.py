"""Selections as files: COG, Zarr, npy. Whole or not at all, and never over something else."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from geostore import grid
from geostore.errors import ConflictError, InvalidInputError, NotFoundError, StorageFullError
from geostore.raster.output import OutputBand, RasterBlock, RasterProfile, write_cog
from geostore.tensors.cube import to_xarray
from geostore.tensors.naming import file_stem, one_of
from geostore.tensors.optional import require
from geostore.tensors.slots import GroupBy
from geostore.types import BandRole, TileRow
from geostore.wrangle import Fetched, Layer, Mosaic, Radiometry, check_band_names, read_ahead

if TYPE_CHECKING:
    from geostore.backends import Backend

__all__ = ["ExportFormat", "export"]

ExportFormat = Literal["cog", "zarr", "npy"]

_MARKER = ".geostore-export"
"""In every directory that an export made: only such a one is ever overwritten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    backend: Backend
    rows: Sequence[TileRow]
    bands: tuple[str, ...] | None
    resolution: float | None
    radiometry: Radiometry
    cloud_mask: bool
    workers: int | None
    progress: Callable[[int, int], None] | None

    def mosaic(self, rows: Sequence[TileRow]) -> Mosaic:
        return Mosaic(
            self.backend,
            rows,
            bands=self.bands,
            resolution=self.resolution,
            radiometry=self.radiometry,
            cloud_mask=self.cloud_mask,
        )

    def mosaics(self) -> Iterator[tuple[TileRow, Mosaic, Fetched]]:
        """Each tile as a mosaic of its own, with its blocks fetched ahead."""
        items = ((row, self.mosaic([row])) for row in self.rows)
        ahead = read_ahead(
            self.backend,
            items,
            lambda item: (item[0], item[1].plans(item[0])),
            cloud_mask=self.cloud_mask,
        )
        for (row, mosaic), fetched in ahead:
            yield row, mosaic, fetched

    def report(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(done, total)


def export(
    backend: Backend,
    rows: Sequence[TileRow],
    out: Path,
    *,
    format: ExportFormat,  # noqa: A002 - the word that users know
    mosaic: bool,
    bands: tuple[str, ...] | None,
    resolution: float | None,
    radiometry: Radiometry,
    cloud_mask: bool,
    groupby: GroupBy,
    overwrite: bool,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Writes a selection to files; what `Selection.export` does. Returns what was written.

    Raises:
        ConflictError: `out` is there (and `overwrite` is false, or it is no earlier export).
        NotFoundError: an empty selection.
        InvalidInputError: bands that do not go together, a bad place.
        StorageFullError: the disk is full; nothing is left behind.
        MissingDependencyError: zarr or xarray is not installed.
    """
    if format not in get_args(ExportFormat):
        raise InvalidInputError(one_of("export format", format, get_args(ExportFormat)))
    if not rows:
        raise NotFoundError("nothing to export: no tile matches the query")
    check_band_names(rows, bands)
    job = _Job(
        backend=backend,
        rows=rows,
        bands=bands,
        resolution=resolution,
        radiometry=radiometry,
        cloud_mask=cloud_mask,
        workers=workers,
        progress=progress,
    )
    out = out.expanduser()
    is_tiff = out.suffix.lower() in (".tif", ".tiff")
    if format == "cog" and (mosaic or (is_tiff and len(rows) == 1)):
        if not is_tiff:
            raise InvalidInputError(f"{out}: a mosaic is one file; expected a name ending in .tif")
        _check_file(out, overwrite=overwrite)
        _write_mosaic_cog(job, rows, out)
        return [out]
    if is_tiff:
        raise InvalidInputError(
            f"{out}: {len(rows)} tiles are a directory of files; name one, or export a mosaic"
        )
    names: list[str] = []
    with _new_directory(out, overwrite=overwrite) as partial:
        if format == "cog":
            names = _write_tile_cogs(job, partial)
        elif format == "npy":
            names = _write_npy(job, partial, mosaic=mosaic)
        else:
            _write_zarr(job, partial, groupby="mosaic" if mosaic else groupby)
        (partial / _MARKER).touch()
    return [out / name for name in names] or [out]


def _check_file(out: Path, *, overwrite: bool) -> None:
    if out.is_dir():
        raise ConflictError(f"{out} is a directory: expected the name of a file")
    if out.exists() and not overwrite:
        raise ConflictError(f"{out} is there already: choose another name, or overwrite it")


def _check_directory(out: Path, *, overwrite: bool) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        raise ConflictError(f"{out} is there already: choose another name, or overwrite it")
    if not (out / _MARKER).is_file():
        raise ConflictError(f"{out} is there and was not made by an export: choose another name")


@contextmanager
def _new_directory(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A directory beside `out` that takes its place when the block ends well."""
    _check_directory(out, overwrite=overwrite)
    stem = f".{out.name[:100]}.{secrets.token_hex(4)}"
    partial = out.with_name(f"{stem}.partial")
    old = out.with_name(f"{stem}.old")
    try:
        partial.mkdir(parents=True)
        yield partial
        if out.exists():
            out.replace(old)
        partial.replace(out)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFullError(f"{out}: the disk is full; nothing was written") from error
        raise InvalidInputError(f"{out}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if old.exists() and not out.exists():
            old.replace(out)
        shutil.rmtree(old, ignore_errors=True)


def _stem(row: TileRow) -> str:
    return file_stem(row.dataset, row.geocode, row.scene)


def _nodata(layers: Sequence[Layer]) -> float | int | None:
    """The one nodata of all layers; None where they differ: a GeoTIFF has only one."""
    values = {str(layer.nodata): layer.nodata for layer in layers}
    return next(iter(values.values())) if len(values) == 1 else None


def _profile(mosaic: Mosaic, radiometry: Radiometry, tags: dict[str, str]) -> RasterProfile:
    bands = []
    for layer in mosaic.layers:
        scale, offset = radiometry.meaning(layer.info)
        bands.append(OutputBand(name=layer.name, scale=scale, offset=offset, unit=layer.info.unit))
    _, height, width = mosaic.shape
    measured = all(layer.info.role is BandRole.DATA for layer in mosaic.layers)
    a, b, c, d, e, f = mosaic.transform[:6]
    return RasterProfile(
        height=height,
        width=width,
        dtype=mosaic.dtype,
        crs=mosaic.crs,
        transform=(a, b, c, d, e, f),
        bands=tuple(bands),
        nodata=_nodata(mosaic.layers),
        tags=tags,
        overviews="average" if measured else "nearest",
    )


def _tags(rows: Sequence[TileRow]) -> dict[str, str]:
    """What a file says of where its pixels came from."""
    tags = {
        "GEOSTORE_DATASET": ",".join(sorted({row.dataset for row in rows})),
        "GEOSTORE_SCENES": ",".join(sorted({row.scene for row in rows})[:100]),
    }
    times = sorted({row.time for row in rows if row.time is not None})
    if times:
        # TIFF 6.0's DateTime: local by its specification; UTC here, as GDAL's tools write.
        tags["TIFFTAG_DATETIME"] = times[0].strftime("%Y:%m:%d %H:%M:%S")
        tags["GEOSTORE_TIME"] = "/".join(
            moment.isoformat().replace("+00:00", "Z")
            for moment in dict.fromkeys((times[0], times[-1]))
        )
    platforms = sorted({row.platform for row in rows if row.platform})
    if platforms:
        tags["GEOSTORE_PLATFORM"] = ",".join(platforms)
    return tags


def _write_mosaic_cog(job: _Job, rows: Sequence[TileRow], out: Path) -> None:
    mosaic = job.mosaic(rows)
    total = len(mosaic.cells)

    def blocks() -> Iterator[RasterBlock]:
        for done, (window, data, mask) in enumerate(mosaic.blocks(workers=job.workers), start=1):
            yield RasterBlock(row=window.row, column=window.column, data=data, mask=mask)
            job.report(done, total)

    write_cog(out, _profile(mosaic, job.radiometry, _tags(rows)), blocks())


def _write_tile_cogs(job: _Job, directory: Path) -> list[str]:
    names = []
    for done, (row, mosaic, fetched) in enumerate(job.mosaics(), start=1):
        names.append(f"{_stem(row)}.tif")
        blocks = (
            RasterBlock(row=window.row, column=window.column, data=data, mask=mask)
            for window, data, mask in mosaic.blocks(workers=job.workers, fetched=fetched)
        )
        write_cog(directory / names[-1], _profile(mosaic, job.radiometry, _tags([row])), blocks)
        job.report(done, len(job.rows))
    return names


def _sidecar(mosaic: Mosaic, rows: Sequence[TileRow], radiometry: Radiometry) -> dict[str, Any]:
    """What an array without its place and names would leave to guess."""
    bands = []
    for layer in mosaic.layers:
        scale, offset = radiometry.meaning(layer.info)
        nodata = layer.nodata
        if nodata is not None and np.isnan(nodata):
            nodata = "nan"  # type: ignore[assignment]  # JSON has no NaN
        bands.append(
            {
                "name": layer.name,
                "common_name": layer.info.common_name,
                "nodata": nodata,
                "scale": scale,
                "offset": offset,
                "unit": layer.info.unit,
            }
        )
    return {
        "axes": ["band", "y", "x"],
        "shape": list(mosaic.shape),
        "dtype": mosaic.dtype.name,
        "crs": mosaic.crs,
        "transform": list(mosaic.transform[:6]),
        "bands": bands,
        "tiles": [
            {
                "dataset": row.dataset,
                "geocode": row.geocode,
                "scene": row.scene,
                "time": row.time.isoformat().replace("+00:00", "Z") if row.time else None,
                "platform": row.platform,
                "pixel_coverage": row.pixel_coverage,
                "cloud_cover": row.cloud_cover,
                "bbox": list(grid.scheme(row.schema.scheme).bounds(row.geocode).as_tuple()),
            }
            for row in rows
        ],
    }


def _write_npy(job: _Job, directory: Path, *, mosaic: bool) -> list[str]:
    """`NAME.npy` (bands, height, width), `NAME.mask.npy`, and `NAME.json`, a tile or mosaic."""
    sets: Iterable[tuple[str, Sequence[TileRow], Mosaic, Fetched | None]] = (
        [("mosaic", job.rows, job.mosaic(job.rows), None)]
        if mosaic
        else ((_stem(row), [row], laid_out, fetched) for row, laid_out, fetched in job.mosaics())
    )
    total = 1 if mosaic else len(job.rows)
    names: list[str] = []
    for done, (stem, rows, laid_out, fetched) in enumerate(sets, start=1):
        written = (f"{stem}.npy", f"{stem}.mask.npy", f"{stem}.json")
        data = _open_npy(directory / written[0], laid_out.dtype, laid_out.shape)
        mask = _open_npy(directory / written[1], np.dtype(np.bool_), laid_out.shape)
        for band, layer in zip(data, laid_out.layers, strict=True):
            if layer.fill != 0:
                band[...] = layer.fill
        for window, block, valid in laid_out.blocks(workers=job.workers, fetched=fetched):
            here = np.s_[
                :,
                window.row : window.row + window.height,
                window.column : window.column + window.width,
            ]
            data[here] = block
            mask[here] = valid
        data.flush()
        mask.flush()
        text = json.dumps(_sidecar(laid_out, rows, job.radiometry), indent=1, allow_nan=False)
        (directory / written[2]).write_text(text + "\n")
        names += written
        job.report(done, total)
    return names


def _open_npy(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """A new .npy file of zeros, mapped: a mosaic need not fit into memory."""
    array: np.memmap[Any, Any] = np.lib.format.open_memmap(
        path, mode="w+", dtype=dtype, shape=shape
    )
    # The file is sparse; pages that cannot be backed would end the process with SIGBUS.
    with path.open("r+b") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _write_zarr(job: _Job, directory: Path, *, groupby: GroupBy) -> None:
    """A Zarr version 2 group (which GDAL reads as well), one chunk a tile."""
    require("zarr", needed_for="export to zarr", extra="xarray,zarr")
    cube = to_xarray(
        job.backend,
        job.rows,
        bands=job.bands,
        resolution=job.resolution,
        groupby=groupby,
        chunks={},
        radiometry=job.radiometry,
        cloud_mask=job.cloud_mask,
        masks=False,
        memory_limit=None,
    )
    cube.to_zarr(directory, mode="w-", zarr_format=2, consolidated=True)
