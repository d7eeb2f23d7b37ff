"""What the bits of Landsat's quality bands mean, and which of them are cloud.

Collection 2: Landsat 8-9 and 4-7 Collection 2 Level-1 Data Format Control Books (USGS LSDS-1822,
-1414, -1415) and Level-2 Science Product Guides (LSDS-1619, -1618). Collection 1: the Collection 1
Level-1 Quality Assessment Band (LSDS-1388). Before collections: Landsat 8 Data Users Handbook,
version 1, table 5-4; the same name BQA, other bits.
"""

from __future__ import annotations

from typing import Literal

from geostore.types import BitField, BitTest, CloudLayer

__all__ = [
    "FILL",
    "Generation",
    "aerosol_fields",
    "bqa_fields",
    "cloud_layer",
    "cloud_qa_fields",
    "qa_pixel_fields",
    "radsat_fields",
]

Generation = Literal["c2", "c1", "pre-collection"]
"""How a product was made: quality bits, names and radiometry go by it."""

FILL = 1
"""QA_PIXEL, BQA and SR_QA_AEROSOL outside the scene: bit 0 and no other."""

_FOUR_LEVELS = {"0": "not determined", "1": "low", "2": "medium", "3": "high"}
_HIGH_OR_NOT = {"0": "not determined", "1": "low", "3": "high"}
_THIRDS = {
    "0": "not determined",
    "1": "0 to 33 percent",
    "2": "34 to 66 percent",
    "3": "67 to 100 percent",
}
_SATURATED = {"0": "no band", "1": "1 or 2 bands", "2": "3 or 4 bands", "3": "5 or more bands"}


def cloud_layer(generation: Generation, *, has_cirrus: bool) -> CloudLayer:
    """What the provider's quality band calls cloud.

    Cloud and, where the sensor has a band for it, cirrus of high confidence. Collection 2's
    dilated cloud (bit 1) is left out: it is a margin of some pixels around cloud, made so that
    masks err on the safe side, and would count clear ground as cloud. The product's own
    CLOUD_COVER does not count it either.
    """
    tests: tuple[BitTest, ...]
    if generation == "c2":
        band = "QA_PIXEL"
        tests = (BitTest(2, 2), BitTest(3, 3)) if has_cirrus else (BitTest(3, 3),)
    elif generation == "c1":
        band = "BQA"
        cirrus = (BitTest(11, 12, frozenset({3})),) if has_cirrus else ()
        tests = (BitTest(4, 4), *cirrus)
    else:
        band = "BQA"
        tests = (BitTest(12, 13, frozenset({3})), BitTest(14, 15, frozenset({3})))
    return CloudLayer(band, "bits", tests=tests, nodata_values=frozenset({FILL}))


def qa_pixel_fields(*, has_cirrus: bool) -> tuple[BitField, ...]:
    """Collection 2, QA_PIXEL."""
    fields = [
        BitField("fill", 0),
        BitField("dilated_cloud", 1),
        BitField("cirrus", 2),
        BitField("cloud", 3),
        BitField("cloud_shadow", 4),
        BitField("snow", 5),
        BitField("clear", 6),
        BitField("water", 7),
        BitField("cloud_confidence", 8, 2, _FOUR_LEVELS),
        BitField("cloud_shadow_confidence", 10, 2, _HIGH_OR_NOT),
        BitField("snow_ice_confidence", 12, 2, _HIGH_OR_NOT),
        BitField("cirrus_confidence", 14, 2, _HIGH_OR_NOT),
    ]
    return tuple(field for field in fields if has_cirrus or "cirrus" not in field.name)


def bqa_fields(generation: Generation, *, has_cirrus: bool) -> tuple[BitField, ...]:
    """BQA of Collection 1, or of Landsat 8 before collections."""
    if generation == "pre-collection":
        return (
            BitField("fill", 0),
            BitField("dropped_frame", 1),
            BitField("terrain_occlusion", 2),
            BitField("water_confidence", 4, 2, _THIRDS),
            BitField("cloud_shadow_confidence", 6, 2, _THIRDS),
            BitField("vegetation_confidence", 8, 2, _THIRDS),
            BitField("snow_ice_confidence", 10, 2, _THIRDS),
            BitField("cirrus_confidence", 12, 2, _THIRDS),
            BitField("cloud_confidence", 14, 2, _THIRDS),
        )
    fields = [
        BitField("fill", 0),
        # The two families of sensors use the bit for different things.
        BitField("terrain_occlusion" if has_cirrus else "dropped_pixel", 1),
        BitField("radiometric_saturation", 2, 2, _SATURATED),
        BitField("cloud", 4),
        BitField("cloud_confidence", 5, 2, _FOUR_LEVELS),
        BitField("cloud_shadow_confidence", 7, 2, _FOUR_LEVELS),
        BitField("snow_ice_confidence", 9, 2, _FOUR_LEVELS),
        BitField("cirrus_confidence", 11, 2, _FOUR_LEVELS),
    ]
    return tuple(field for field in fields if has_cirrus or field.name != "cirrus_confidence")


def radsat_fields(sensor: str) -> tuple[BitField, ...]:
    """Collection 2, QA_RADSAT: which bands are saturated in a pixel."""
    if sensor in ("TM", "ETM"):
        names = {0: "1", 1: "2", 2: "3", 3: "4", 4: "5", 5: "6", 6: "7"}
        if sensor == "ETM":
            names |= {5: "6_vcid_1", 8: "6_vcid_2"}
        last = BitField("dropped_pixel", 9)
    else:
        names = {bit: str(bit + 1) for bit in range(7)} | {8: "9"}
        last = BitField("terrain_occlusion", 11)
    saturated = (BitField(f"b{names[bit]}_saturated", bit) for bit in sorted(names))
    return (*saturated, last)


def aerosol_fields() -> tuple[BitField, ...]:
    """Collection 2, SR_QA_AEROSOL (Landsat 8 and 9)."""
    levels = {"0": "climatology", "1": "low", "2": "medium", "3": "high"}
    return (
        BitField("fill", 0),
        BitField("valid_retrieval", 1),
        BitField("water", 2),
        BitField("interpolated", 5),
        BitField("level", 6, 2, levels),
    )


def cloud_qa_fields() -> tuple[BitField, ...]:
    """Collection 2, SR_CLOUD_QA (Landsat 4 to 7), from the surface reflectance algorithm."""
    names = ("dark_dense_vegetation", "cloud", "cloud_shadow", "adjacent_to_cloud", "snow", "water")
    return tuple(BitField(name, bit) for bit, name in enumerate(names))
