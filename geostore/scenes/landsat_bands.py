"""Which bands a Landsat product has, by sensor, level and collection.

Wavelengths, scales, units and fill values: the Data Format Control Books and Science Product
Guides named in `landsat_quality`, and USGS's STAC items for the common names. `nir08` is what the
provider calls the one near-infrared band of every sensor; `nir` is answered to as well, as there
is no other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from geostore.scenes.landsat_quality import (
    FILL,
    Generation,
    aerosol_fields,
    bqa_fields,
    cloud_qa_fields,
    qa_pixel_fields,
    radsat_fields,
)
from geostore.types import BandInfo, BandRole, BitField

__all__ = ["SENSORS", "LandsatBand", "Sensor", "has_cirrus", "product_bands"]

Sensor = Literal["TM", "ETM", "OLI_TIRS", "OLI", "TIRS"]
SENSORS: tuple[Sensor, ...] = get_args(Sensor)
Measure = Literal["reflectance", "radiance", "temperature"]

RADIANCE_UNIT = "W m-2 sr-1 um-1"

# Number as in the file's name, STAC common name, wavelength.
_TM = (
    ("1", "blue", "0.45-0.52 um"),
    ("2", "green", "0.52-0.60 um"),
    ("3", "red", "0.63-0.69 um"),
    ("4", "nir08", "0.76-0.90 um"),
    ("5", "swir16", "1.55-1.75 um"),
    ("7", "swir22", "2.08-2.35 um"),
)
_OLI = (
    ("1", "coastal", "0.43-0.45 um"),
    ("2", "blue", "0.45-0.51 um"),
    ("3", "green", "0.53-0.59 um"),
    ("4", "red", "0.64-0.67 um"),
    ("5", "nir08", "0.85-0.88 um"),
    ("6", "swir16", "1.57-1.65 um"),
    ("7", "swir22", "2.11-2.29 um"),
)
_ETM_PAN = (("8", "pan", "0.52-0.90 um"),)
_OLI_PAN = (("8", "pan", "0.50-0.68 um"), ("9", "cirrus", "1.36-1.38 um"))
_TM_THERMAL = (("6", "lwir", "10.40-12.50 um"),)
_ETM_THERMAL = (
    ("6_VCID_1", "lwir", "10.40-12.50 um, low gain"),
    ("6_VCID_2", "lwir", "10.40-12.50 um, high gain"),
)
_TIRS = (("10", "lwir11", "10.60-11.19 um"), ("11", "lwir12", "11.50-12.51 um"))

# Name, scale, unit, description of the layers that come with surface temperature.
_TEMPERATURE_LAYERS = (
    ("ST_ATRAN", 1e-4, None, "atmospheric transmittance"),
    ("ST_CDIST", 0.01, "km", "distance to the nearest cloud"),
    ("ST_DRAD", 1e-3, RADIANCE_UNIT, "downwelled radiance"),
    ("ST_EMIS", 1e-4, None, "emissivity"),
    ("ST_EMSD", 1e-4, None, "standard deviation of emissivity"),
    ("ST_QA", 0.01, "K", "uncertainty of surface temperature"),
    ("ST_TRAD", 1e-3, RADIANCE_UNIT, "thermal radiance"),
    ("ST_URAD", 1e-3, RADIANCE_UNIT, "upwelled radiance"),
)
_ANGLES = (
    ("VAA", "view azimuth"),
    ("VZA", "view zenith"),
    ("SAA", "solar azimuth"),
    ("SZA", "solar zenith"),
)


@dataclass(frozen=True, slots=True)
class LandsatBand:
    """A band that a product may have."""

    info: BandInfo
    """Its scale, offset and unit where the product's definition fixes them."""
    number: str | None = None
    """As the MTL's keys call it: `4` of REFLECTANCE_MULT_BAND_4, `ST_B10`."""
    measure: Measure | None = None
    """What the MTL's scale makes of stored numbers."""
    optional: bool = False
    """Not missed unless the MTL lists it."""


def has_cirrus(sensor: Sensor) -> bool:
    """Whether the sensor's quality bits tell cirrus."""
    return sensor not in ("TM", "ETM")


def product_bands(generation: Generation, level: str, sensor: Sensor) -> tuple[LandsatBand, ...]:
    """The bands of a whole product, in the provider's order.

    Args:
        level: as in the product's name: `L1TP`, `L2SP` (with surface temperature), `L2SR`.
    """
    if level.startswith("L2"):
        return tuple(_level_2(sensor, with_temperature=level == "L2SP"))
    return tuple(_level_1(generation, sensor))


def _reflective(sensor: Sensor) -> tuple[tuple[str, str, str], ...]:
    if sensor == "TIRS":
        return ()
    return _TM if sensor in ("TM", "ETM") else _OLI


def _level_1(generation: Generation, sensor: Sensor) -> Iterator[LandsatBand]:
    is_oli = has_cirrus(sensor)
    # In the order of their numbers: the thermal band lies among the others on older sensors.
    yield from sorted(_level_1_measured(sensor), key=_place)
    if generation == "c2":
        yield from _level_1_quality(sensor)
        for name, description in _ANGLES:
            info = BandInfo(
                name=name,
                dtype="int16",
                role=BandRole.QUALITY,
                scale=0.01,
                unit="degree",
                description=f"{description} angle, of band 4",
            )
            yield LandsatBand(info, optional=True)
    elif generation == "c1" or is_oli:  # before collections only Landsat 8 had one
        fields = bqa_fields(generation, has_cirrus=is_oli)
        yield _quality_band("BQA", "pixel quality", fields, fill=FILL)


def _place(band: LandsatBand) -> int:
    """A band's number as a number: 6 for `6_VCID_2`."""
    return int((band.number or "0").partition("_")[0])


def _level_1_measured(sensor: Sensor) -> Iterator[LandsatBand]:
    is_oli = has_cirrus(sensor)
    pan = {"TM": (), "TIRS": (), "ETM": _ETM_PAN}.get(sensor, _OLI_PAN)
    thermal = {"TM": _TM_THERMAL, "ETM": _ETM_THERMAL, "OLI": ()}.get(sensor, _TIRS)
    for number, common, wavelength in (*_reflective(sensor), *pan):
        info = _data_band(
            f"B{number}",
            common,
            f"top of atmosphere reflectance, not corrected for the sun's elevation, {wavelength}",
            # Fixed for the sensors whose counts are reflectance by design.
            scale=2e-5 if is_oli else 1.0,
            offset=-0.1 if is_oli else 0.0,
        )
        yield LandsatBand(info, number, "reflectance")
    for number, common, wavelength in thermal:
        info = _data_band(f"B{number}", common, f"top of atmosphere radiance, {wavelength}")
        yield LandsatBand(info, number, "radiance")


def _level_1_quality(sensor: Sensor) -> Iterator[LandsatBand]:
    fields = qa_pixel_fields(has_cirrus=has_cirrus(sensor))
    yield _quality_band("QA_PIXEL", "pixel quality", fields, fill=FILL)
    yield _quality_band("QA_RADSAT", "radiometric saturation", radsat_fields(sensor))


def _level_2(sensor: Sensor, *, with_temperature: bool) -> Iterator[LandsatBand]:
    is_oli = has_cirrus(sensor)
    for number, common, wavelength in _reflective(sensor):
        info = _data_band(
            f"SR_B{number}",
            common,
            f"surface reflectance, {wavelength}",
            scale=2.75e-5,
            offset=-0.2,
        )
        yield LandsatBand(info, number, "reflectance")
    if with_temperature:
        _, common, wavelength = (_TIRS if is_oli else _TM_THERMAL)[0]
        name = "ST_B10" if is_oli else "ST_B6"
        info = _data_band(
            name,
            common,
            f"surface temperature, {wavelength}",
            scale=0.00341802,
            offset=149.0,
            unit="K",
        )
        yield LandsatBand(info, name, "temperature")
    if is_oli:
        yield _quality_band(
            "SR_QA_AEROSOL", "aerosol retrieval", aerosol_fields(), dtype="uint8", fill=FILL
        )
    else:
        yield _layer("SR_ATMOS_OPACITY", 1e-3, None, "atmospheric opacity")
        yield _quality_band("SR_CLOUD_QA", "cloud and cover", cloud_qa_fields(), dtype="uint8")
    yield from _level_1_quality(sensor)
    if with_temperature:
        for name, scale, unit, description in _TEMPERATURE_LAYERS:
            yield _layer(name, scale, unit, description)


def _data_band(
    name: str,
    common_name: str,
    description: str,
    *,
    scale: float = 1.0,
    offset: float = 0.0,
    unit: str | None = None,
) -> BandInfo:
    return BandInfo(
        name=name,
        common_name=common_name,
        aliases=("nir",) if common_name == "nir08" else (),
        dtype="uint16",
        nodata=0,
        scale=scale,
        offset=offset,
        unit=unit,
        description=description,
    )


def _layer(name: str, scale: float, unit: str | None, description: str) -> LandsatBand:
    return LandsatBand(
        BandInfo(
            name=name,
            dtype="int16",
            nodata=-9999,
            role=BandRole.QUALITY,
            scale=scale,
            unit=unit,
            description=description,
        )
    )


def _quality_band(
    name: str,
    description: str,
    fields: tuple[BitField, ...],
    *,
    dtype: str = "uint16",
    fill: int | None = None,
) -> LandsatBand:
    return LandsatBand(
        BandInfo(
            name=name,
            dtype=dtype,
            nodata=fill,
            role=BandRole.QUALITY,
            description=f"{description}, bits",
            bitfields=fields,
        )
    )
