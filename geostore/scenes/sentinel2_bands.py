"""What bands Sentinel-2 products have, by level: names, units, classes and colours.

From the Sentinel-2 Products Specification Document (ESA, S2-PDGS-TAS-DI-PSD) and, for the scene
classification, Table 3 of the Level-2A Algorithm Theoretical Basis Document; its colours are
those of ESA's legend, as Sen2Cor and the Copernicus browser draw it.
"""

from __future__ import annotations

from typing import Literal

from geostore.types import BandInfo, BandRole, BitField, BitTest, CloudLayer

__all__ = [
    "CLASSI",
    "CLOUD_OF_CLASSES",
    "CLOUD_OF_CLASSI",
    "CLOUD_OF_PROBABILITY",
    "L2A_LAYERS",
    "PREVIEWS",
    "QUANTIFICATION",
    "SPECTRAL",
    "Level",
    "product_bands",
    "spectral_bands",
]

Level = Literal["L1C", "L2A"]

QUANTIFICATION = 10_000.0
"""Reflectance 1.0 as stored, in every operational product so far."""

# Name, STAC common name, centre wavelength; the position is the XML's band_id.
SPECTRAL: tuple[tuple[str, str, str], ...] = (
    ("B01", "coastal", "443 nm"),
    ("B02", "blue", "490 nm"),
    ("B03", "green", "560 nm"),
    ("B04", "red", "665 nm"),
    ("B05", "rededge071", "704 nm"),
    ("B06", "rededge075", "740 nm"),
    ("B07", "rededge078", "783 nm"),
    ("B08", "nir", "842 nm"),
    ("B8A", "nir08", "865 nm"),
    ("B09", "nir09", "945 nm"),
    ("B10", "cirrus", "1375 nm"),
    ("B11", "swir16", "1610 nm"),
    ("B12", "swir22", "2190 nm"),
)

PREVIEWS = ("TCI", "PVI")

# Code, name, colour.
_SCENE_CLASSES = (
    ("0", "no data", "#000000"),
    ("1", "saturated or defective", "#ff0000"),
    ("2", "dark area", "#2f2f2f"),
    ("3", "cloud shadow", "#643200"),
    ("4", "vegetation", "#00a000"),
    ("5", "not vegetated", "#ffe65a"),
    ("6", "water", "#0000ff"),
    ("7", "unclassified", "#808080"),
    ("8", "cloud, medium probability", "#c0c0c0"),
    ("9", "cloud, high probability", "#ffffff"),
    ("10", "thin cirrus", "#64c8ff"),
    ("11", "snow or ice", "#ff96ff"),
)

L2A_LAYERS: tuple[BandInfo, ...] = (
    BandInfo(
        name="AOT",
        dtype="uint16",
        nodata=0,
        role=BandRole.QUALITY,
        scale=1e-3,
        description="aerosol optical thickness at 550 nm",
    ),
    BandInfo(
        name="WVP",
        dtype="uint16",
        nodata=0,
        role=BandRole.QUALITY,
        scale=1e-3,
        unit="cm",
        description="water vapour column",
    ),
    BandInfo(
        name="SCL",
        dtype="uint8",
        nodata=0,
        role=BandRole.CLASS,
        description="scene classification",
        class_names={code: name for code, name, _ in _SCENE_CLASSES},
        class_colors={code: color for code, _, color in _SCENE_CLASSES},
    ),
    BandInfo(
        name="CLDPRB",
        dtype="uint8",
        role=BandRole.LIKELIHOOD,
        unit="percent",
        description="cloud probability",
    ),
    BandInfo(
        name="SNWPRB",
        dtype="uint8",
        role=BandRole.QUALITY,
        unit="percent",
        description="snow probability",
    ),
)

CLASSI = BandInfo(
    name="CLASSI",
    dtype="uint8",
    role=BandRole.QUALITY,
    description="the product's own masks of cloud and snow",
    bitfields=(
        BitField("opaque_cloud", 0),
        BitField("cirrus", 1),
        BitField("snow", 2),
    ),
)
"""L1C's masks as one band: bit by bit what the layers of MSK_CLASSI_B00 say in this order, which
is the order in which the Earth Observation Processing Framework packs them too."""

CLOUD_OF_CLASSES = CloudLayer("SCL", "classes", frozenset({8, 9, 10}), nodata_values=frozenset({0}))
CLOUD_OF_PROBABILITY = CloudLayer("CLDPRB", "likelihood", frozenset({50}))
CLOUD_OF_CLASSI = CloudLayer("CLASSI", "bits", tests=(BitTest(0, 0), BitTest(1, 1)))


def spectral_bands(level: Level) -> tuple[BandInfo, ...]:
    """The reflectances of a level: L2A leaves out the cirrus band."""
    return tuple(
        BandInfo(
            name=name,
            common_name=common,
            dtype="uint16",
            nodata=0,
            scale=1.0 / QUANTIFICATION,
            description=f"reflectance, {wavelength}",
        )
        for name, common, wavelength in SPECTRAL
        if level == "L1C" or name != "B10"
    )


def product_bands(level: Level) -> tuple[BandInfo, ...]:
    """What a whole product has as images of their own: what a scene may report as missing."""
    return spectral_bands(level) + (L2A_LAYERS if level == "L2A" else ())
