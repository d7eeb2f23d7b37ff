"""Band files of the real scenes, found and opened without geostore's readers."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.io import DatasetReader, MemoryFile

__all__ = ["BandFile", "band_file", "in_memory"]


@dataclass(frozen=True)
class BandFile:
    """What rasterio opens, which of its bands, and the nodata value the product defines."""

    path: str
    index: int
    nodata: float | None


def band_file(source: Path, band: str) -> BandFile:
    """The file that ships `band` at its finest, by the providers' naming rules."""
    if source.suffix == ".zip":
        with zipfile.ZipFile(source) as archive:
            (member,) = [name for name in archive.namelist() if name.endswith(f"_{band}.jp2")]
        return BandFile(f"/vsizip/{source}/{member}", 1, 0)
    if source.suffix == ".SAFE":
        names = {"CLDPRB": "MSK_CLDPRB", "SNWPRB": "MSK_SNWPRB"}
        found = sorted(
            source.rglob(f"*{names.get(band, band)}_[126]0m.jp2"), key=lambda p: p.stem[-3:]
        )
        return BandFile(str(found[0]), 1, None if band in {"AOT", "WVP", *names} else 0)
    with rasterio.open(source) as dataset:
        index = int(band.removeprefix("B")) if band.startswith("B") else 1
        return BandFile(str(source), index, dataset.nodata)


@contextmanager
def in_memory(file: BandFile) -> Iterator[DatasetReader]:
    """The band, decoded once, as an uncompressed one-band dataset."""
    with rasterio.open(file.path) as source:
        data = source.read(file.index)
        profile = {
            "driver": "GTiff",
            "height": source.height,
            "width": source.width,
            "count": 1,
            "dtype": data.dtype,
            "crs": source.crs,
            "transform": source.transform,
            "nodata": file.nodata,
        }
        if file.nodata is None and not np.all(source.read_masks(file.index)):
            raise AssertionError(f"{file.path} has a mask that this oracle does not model")
    with MemoryFile() as memory:
        with memory.open(**profile) as target:
            target.write(data, 1)
        with memory.open() as dataset:
            yield dataset
