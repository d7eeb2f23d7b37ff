"""Selections as tensors and tables, and as files."""

from geostore.tensors.cube import Chunks, to_xarray
from geostore.tensors.export import ExportFormat, export
from geostore.tensors.slots import GroupBy
from geostore.tensors.tables import record_batches, to_arrow, to_pandas

__all__ = [
    "Chunks",
    "ExportFormat",
    "GroupBy",
    "export",
    "record_batches",
    "to_arrow",
    "to_pandas",
    "to_xarray",
]
