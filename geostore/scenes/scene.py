"""Scenes as values: what a reader gives and what ingest takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

from geostore.types import BandInfo, BandRole, CloudLayer, SchemeName, TimeSpan

if TYPE_CHECKING:
    from geostore.raster.source import PixelSource
    from geostore.scenes.source import Source

__all__ = ["ReadOptions", "Reader", "ReaderDefaults", "ReaderFamily", "Scene", "SceneBand"]


@dataclass(frozen=True, slots=True)
class ReaderDefaults:
    """What a dataset made for a reader takes from it; None: the first scene decides."""

    resolutions_m: tuple[float, ...] | None = None
    """Pixel sizes of the resolution groups, finest first."""
    lengths: Mapping[SchemeName, int] | None = None
    """Cell length by scheme."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What the caller says about the scenes to be read."""

    time: TimeSpan | None = None
    """When a plain raster was taken (`--time`); products that state a time keep theirs."""
    clouds: str | None = None
    """A detector to run on products that ship no likelihood of cloud (`s2cloudless`)."""


@dataclass(frozen=True, slots=True)
class SceneBand:
    """One band: what it is and where its pixels come from."""

    info: BandInfo
    source: PixelSource


@dataclass(kw_only=True)
class Scene:
    """One acquisition or product, opened. Close it, or use it as a context manager.

    `bands` has data, quality, class and likelihood bands in the provider's order; previews
    are only listed, in `previews`, and never stored.
    """

    id: str
    """The product's own; of a plain raster the file's stem and 8 digits of its hash."""
    reader: str
    path: str
    """As the caller gave it."""
    time_us: int | None
    time_end_us: int | None
    """Equal to `time_us` for an instant; both None where no time is known."""
    platform: str | None
    """`sentinel-2a`: STAC's spelling."""
    bands: tuple[SceneBand, ...]
    missing: tuple[str, ...] = ()
    """Bands that the product should have and lacks."""
    previews: tuple[str, ...] = ()
    cloud: CloudLayer | None = None
    likelihood_band: str | None = None
    """The band of cloud likelihood in percent, for the histogram."""
    properties: dict[str, Any] = field(default_factory=dict)
    """JSON-able metadata, kept with every tile."""
    fingerprint: str
    """Hex SHA-256 of the names and contents of exactly the files used."""
    on_close: Callable[[], None] | None = field(default=None, repr=False)

    def band(self, name: str) -> SceneBand | None:
        """The band of that provider's name, else of that common name."""
        for band in self.bands:
            if band.info.name == name:
                return band
        return next((band for band in self.bands if band.info.common_name == name), None)

    @property
    def data_bands(self) -> tuple[SceneBand, ...]:
        """The bands that count for pixel coverage."""
        return tuple(band for band in self.bands if band.info.role is BandRole.DATA)

    def close(self) -> None:
        """Close every band's file and clear what was unpacked. Calling twice is harmless."""
        for band in self.bands:
            band.source.close()
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            on_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Reader(Protocol):
    """Turns one provider's format into scenes. Stateless; one instance serves all threads."""

    @property
    def name(self) -> str:
        """Names the reader and, unless the user says otherwise, its dataset."""
        ...

    @property
    def defaults(self) -> ReaderDefaults: ...

    @property
    def bands(self) -> tuple[BandInfo, ...]:
        """What a whole product has; () where any bands may come."""
        ...

    def claims(self, source: Source) -> bool:
        """Whether this reader opens `source`: by content, cheaply, without reading pixels."""
        ...

    def open(self, source: Source, options: ReadOptions) -> list[Scene]:
        """The scenes in `source`, at least one.

        Each scene takes its own hold on the source (`Source.retain` with `on_close`), which
        stays open until the last of them is closed.

        Raises:
            UnreadableSourceError: damaged, incomplete or hostile; names the file.
        """
        ...


@runtime_checkable
class ReaderFamily(Protocol):
    """A reader of many products whose scenes name it, and their dataset, by product.

    `modis` reads any of them; its scenes say `modis-mod09ga`, which is what users pass to
    `--reader` and `--like` too.
    """

    def variant(self, name: str) -> Reader | None:
        """The reader of that very name; None where it is none of the family."""
        ...
