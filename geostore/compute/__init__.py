"""Pure array kernels: no I/O, no CRS, no catalog."""

from geostore.compute.clouds import cloud_cover, cloud_mask, likelihood_histogram
from geostore.compute.coverage import pixel_coverage
from geostore.compute.statistics import band_statistics

__all__ = [
    "band_statistics",
    "cloud_cover",
    "cloud_mask",
    "likelihood_histogram",
    "pixel_coverage",
]
