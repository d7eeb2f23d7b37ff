"""Pure array kernels: no I/O, no CRS, no catalog."""

from geostore.compute.bitmaps import block_bitmaps
from geostore.compute.clouds import cloud_cover, cloud_mask, likelihood_histogram
from geostore.compute.coverage import percent_valid, pixel_coverage, valid_pixels
from geostore.compute.statistics import band_statistics

__all__ = [
    "band_statistics",
    "block_bitmaps",
    "cloud_cover",
    "cloud_mask",
    "likelihood_histogram",
    "percent_valid",
    "pixel_coverage",
    "valid_pixels",
]
