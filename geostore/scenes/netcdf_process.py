"""What a child process answers about one netCDF file: its variables, attributes and pixels.

The one place that imports netCDF4. See `isolated` for why this is a process of its own. HDF5
files may say that their pixels lie in other files, anywhere on the machine: before the file is
opened the process gives up the right to open more than one file at a time, so those fail.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import resource
from pathlib import Path
from typing import Any

from geostore.scenes.isolated_process import Handler, serve
from geostore.scenes.netcdf_classic import classic_bytes_min

__all__ = ["main"]

VARIABLES_MAX = 2000
VALUES_MAX = 10_000
"""Numbers of one attribute."""
TEXT_CHARACTERS_MAX = 1 << 20
LABELS_MAX = 4096
"""Entries of a variable of texts that names the places along a dimension."""
UNPACKED_BYTES_MAX = 1 << 28
"""Of an archive's member: it is held in memory."""
_FIRST_FREE_DESCRIPTOR = 6
_STORED_HERE = frozenset({0, 1, 2})
"""netcdf.h: NC_CHUNKED, NC_CONTIGUOUS, NC_COMPACT. Of a virtual variable, whose pixels lie in
other files, the library gives its fill values without a word where it cannot open those."""
_DTYPES = frozenset(
    f"{kind}{size}" for kind, sizes in (("i", "1248"), ("u", "1248"), ("f", "48")) for size in sizes
)


class _File:
    """One file and the library; opened at the first request."""

    def __init__(self) -> None:
        import netCDF4
        import numpy as np

        self._np = np
        self._library: Any = netCDF4
        # What the package does not pass on is asked of the C library that it brings.
        extension = self._library._netCDF4.__file__  # noqa: SLF001 - where that library is linked
        self._inquire_chunking = ctypes.CDLL(extension).nc_inq_var_chunking
        self._dataset: Any = None
        self._content: mmap.mmap | None = None
        _load_filters(self._library)

    def answer(self, path: str, request: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        if self._dataset is None:
            _refuse_truncated(path)
            try:
                self._dataset = self._open(path)
            except OSError as error:
                raise ValueError(
                    f"the netCDF library cannot open it ({error.strerror or error}); expected a"
                    " whole netCDF file"
                ) from error
            self._dataset.set_auto_maskandscale(False)
            self._dataset.set_auto_chartostring(False)
        if request["do"] == "describe":
            try:
                return self._describe(), None
            except (AttributeError, LookupError, RuntimeError, TypeError) as error:
                raise ValueError(
                    f"the netCDF library makes no sense of it ({error}); it is damaged"
                ) from error
        if request["do"] == "labels":
            return {"labels": self._labels(request["variable"])}, None
        return self._read(request["variable"], request["start"], request["count"])

    def _open(self, path: str) -> Any:
        status = Path(path).stat()
        if status.st_nlink:
            _open_one_file_at_a_time()
            return self._library.Dataset(path, "r")
        # An archive's member is unpacked to a file without a name, which HDF5 cannot open.
        if status.st_size > UNPACKED_BYTES_MAX:
            raise ValueError(
                f"{status.st_size} bytes in an archive; expected {UNPACKED_BYTES_MAX} at most:"
                " unpack it first"
            )
        with Path(path).open("rb") as file:
            self._content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        _open_one_file_at_a_time()
        return self._library.Dataset("member", "r", memory=self._content)

    def _describe(self) -> dict[str, Any]:
        dataset = self._dataset
        if len(dataset.variables) > VARIABLES_MAX:
            raise ValueError(
                f"{len(dataset.variables)} variables; at most {VARIABLES_MAX} are read"
            )
        return {
            "model": str(dataset.data_model),
            "attributes": self._attributes(dataset),
            "groups": sorted(str(name) for name in dataset.groups)[:VALUES_MAX],
            "dimensions": {name: len(one) for name, one in dataset.dimensions.items()},
            "variables": {name: self._variable(one) for name, one in dataset.variables.items()},
        }

    def _variable(self, variable: Any) -> dict[str, Any]:
        chunks = variable.chunking()
        return {
            "dtype": self._dtype(variable),
            "dimensions": list(variable.dimensions),
            "shape": [int(side) for side in variable.shape],
            "chunks": [int(side) for side in chunks] if isinstance(chunks, list | tuple) else None,
            "attributes": self._attributes(variable),
        }

    def _is_stored_here(self, variable: Any) -> bool:
        storage = ctypes.c_int(-1)
        ids = (self._dataset._grpid, variable._varid)  # noqa: SLF001 - the C library's handles
        status = self._inquire_chunking(*map(ctypes.c_int, ids), ctypes.byref(storage), None)
        return status == 0 and storage.value in _STORED_HERE

    def _dtype(self, variable: Any) -> str | None:
        """What numpy calls it; `text` for characters and strings, None for what is no number."""
        if not self._is_stored_here(variable):
            return None
        kind = variable.datatype
        if variable.dtype is str:
            return "text"
        if not isinstance(kind, self._np.dtype):
            return None  # an enumeration, a structure, a list of any length
        if kind.kind == "S":
            return "text"
        return str(kind.name) if kind.str[1:] in _DTYPES else None

    def _attributes(self, holder: Any) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for name in holder.ncattrs():
            value = holder.getncattr(name)
            if isinstance(value, str):
                plain[name] = value[:TEXT_CHARACTERS_MAX]
            elif isinstance(value, list) and all(isinstance(one, str) for one in value):
                plain[name] = [one[:TEXT_CHARACTERS_MAX] for one in value[:VALUES_MAX]]
            elif isinstance(value, self._np.ndarray | self._np.generic):
                numbers = self._np.ravel(value)
                if numbers.dtype.kind in "iuf" and numbers.size <= VALUES_MAX:
                    found = numbers.tolist()
                    plain[name] = found[0] if len(found) == 1 else found
        return plain

    def _labels(self, name: str) -> list[str]:
        """The texts of a variable along its first dimension."""
        variable = self._dataset.variables[name]
        if variable.shape and variable.shape[0] > LABELS_MAX:
            raise ValueError(f"{variable.shape[0]} texts in {name}; at most {LABELS_MAX} are read")
        if math.prod(variable.shape) > TEXT_CHARACTERS_MAX:
            raise ValueError(f"{name} has more than {TEXT_CHARACTERS_MAX} characters")
        values = variable[...]
        if values.dtype.kind == "S" and values.ndim == 2:
            joined = [b"".join(row.tolist()) for row in values]
            return [one.rstrip(b"\0 ").decode("utf-8", "replace") for one in joined]
        return [
            one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one)
            for one in values.ravel().tolist()
        ]

    def _read(self, name: str, start: list[int], count: list[int]) -> tuple[dict[str, Any], Any]:
        variable = self._dataset.variables[name]
        window = tuple(slice(one, one + many) for one, many in zip(start, count, strict=True))
        try:
            data = self._np.asarray(variable[window])
        except RuntimeError as error:
            raise ValueError(f"{name}: the netCDF library cannot read it ({error})") from error
        if list(data.shape) != count:
            raise ValueError(f"{data.shape} values of {name} were read of {count} asked for")
        native = self._np.ascontiguousarray(data, data.dtype.newbyteorder("="))
        return {"dtype": native.dtype.name}, native


def _refuse_truncated(path: str) -> None:
    with Path(path).open("rb") as file:
        wanted = classic_bytes_min(file)
        size = file.seek(0, os.SEEK_END)
    if wanted is not None and size < wanted:
        raise ValueError(f"{size} bytes; expected {wanted} by its header: it is cut off")


def _load_filters(library: Any) -> None:
    """Codecs are plug-ins, which are files, loaded when they are first asked for: now."""
    with library.Dataset("filters", "w", diskless=True, persist=False) as empty:
        for name in ("zstd", "bzip2", "blosc", "szip"):
            getattr(empty, f"has_{name}_filter")()


def _open_one_file_at_a_time() -> None:
    limit = _FIRST_FREE_DESCRIPTOR + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def _load() -> Handler:
    return _File().answer


def main(memory_bytes_max: int) -> int:
    """The child process."""
    return serve(_load, memory_bytes_max)
