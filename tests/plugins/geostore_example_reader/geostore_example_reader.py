"""A reader of captures: a folder or archive with `capture.json` and one GeoTIFF a band.

{"id": "C-0042", "time": "2024-05-01T10:30:00Z", "platform": "drone-7",
 "bands": {"green": "green.tif", "nir": "near_infrared.tif"}}
"""

from __future__ import annotations

import json
from dataclasses import replace

from geostore.errors import UnreadableSourceError
from geostore.scenes import ReaderDefaults, ReadOptions, Scene, SceneBand, Source
from geostore.types import BandInfo, TimeSpan

DESCRIPTION = "capture.json"
DESCRIPTION_BYTES_MAX = 1 << 20


class CaptureReader:
    name = "example-capture"
    # Datasets made for this reader: one resolution group, cells of about 1 km.
    defaults = ReaderDefaults(resolutions_m=(10.0,), lengths={"geohash": 6, "quadtile": 15})
    # What every capture should have: a scene that lacks one reports it as missing.
    bands = (
        BandInfo(name="green", common_name="green", dtype="uint16", nodata=0),
        BandInfo(name="nir", common_name="nir", dtype="uint16", nodata=0),
    )

    def claims(self, source: Source) -> bool:
        return DESCRIPTION in source.root_names()

    def open(self, source: Source, options: ReadOptions) -> list[Scene]:
        try:
            about = json.loads(source.open_bytes(DESCRIPTION, DESCRIPTION_BYTES_MAX))
            files = dict(about["bands"])
            time = TimeSpan.parse(about["time"])
            scene_id = str(about["id"])
        except (ValueError, KeyError, TypeError) as error:
            raise UnreadableSourceError(
                f"{source.shown(DESCRIPTION)}: expected id, time and bands: {error}"
            ) from error
        present = [info for info in self.bands if files.get(info.name) in source.names()]
        if not present:
            raise UnreadableSourceError(f"{source.path}: no band's file is there")
        sources = [source.band(files[info.name], nodata=info.nodata) for info in present]
        return [
            Scene(
                id=scene_id,
                reader=self.name,
                path=source.path,
                time_us=time.start_us,
                time_end_us=time.end_us,
                platform=about.get("platform"),
                bands=tuple(
                    SceneBand(replace(info, dtype=band.dtype, nodata=band.nodata), band)
                    for info, band in zip(present, sources, strict=True)
                ),
                missing=tuple(info.name for info in self.bands if info not in present),
                properties={"operator": about.get("operator")},
                fingerprint=source.fingerprint(
                    [DESCRIPTION, *(files[info.name] for info in present)]
                ),
            )
        ]
