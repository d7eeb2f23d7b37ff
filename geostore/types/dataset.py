"""What a dataset fixes for all its tiles."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, get_args

from geostore.errors import InvalidInputError
from geostore.types.plain import plain_fields

__all__ = [
    "CloudRule",
    "Codec",
    "DatasetDefinition",
    "Resampling",
    "ResolutionGroup",
    "SchemeName",
    "validate_name",
]

SchemeName = Literal["geohash", "quadtile"]
Codec = Literal["fast", "small"]
CloudMethod = Literal["provider", "likelihood"]
Resampling = Literal["nearest", "bilinear", "cubic", "average", "mode", "lanczos"]

NAME_LENGTH_MAX = 255
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z")


def validate_name(name: str, what: str = "dataset") -> str:
    """`name` itself, if it may name a dataset.

    ASCII letters, digits, `.`, `_` and `-`, first a letter or digit, at most 255 long:
    names appear in URLs, file names, and metric labels.

    Raises:
        InvalidInputError: otherwise.
    """
    if len(name) > NAME_LENGTH_MAX:
        raise InvalidInputError(
            f"{what} name of {len(name)} characters: expected at most {NAME_LENGTH_MAX}"
        )
    if not _NAME.match(name) or name != unicodedata.normalize("NFC", name):
        raise InvalidInputError(
            f"{what} name {name!r}: expected letters, digits, '.', '_' and '-',"
            " starting with a letter or digit"
        )
    return name


def check_choice(value: str, choices: Any, what: str) -> None:
    """Raises InvalidInputError that names the choices if `value` is none of a Literal's."""
    known = get_args(choices)
    if value not in known:
        raise InvalidInputError(f"{what} {value!r}: expected one of {', '.join(known)}")


@dataclass(frozen=True, slots=True)
class ResolutionGroup:
    """The bands of a dataset that share a pixel size.

    Raises:
        InvalidInputError: a resolution or shape that is not positive.
    """

    resolution_m: float
    """Nominal pixel size in metres."""
    height: int
    """Rows of a cell in this group."""
    width: int
    """Columns of a cell in this group."""

    def __post_init__(self) -> None:
        if not (0 < self.resolution_m < float("inf")) or self.height < 1 or self.width < 1:
            raise InvalidInputError(
                f"resolution group {self.resolution_m} m {self.height} x {self.width}:"
                " expected positive numbers"
            )

    @property
    def name(self) -> str:
        """`r10m`, `r0.6m`: the group's name in tile files.

        >>> ResolutionGroup(0.6, 512, 512).name
        'r0.6m'
        """
        return f"r{self.resolution_m:.12g}m"


@dataclass(frozen=True, slots=True)
class CloudRule:
    """What a dataset calls cloud: the provider's mask, or likelihood >= threshold percent."""

    method: CloudMethod = "provider"
    threshold: int = 50
    """Percent; plays no part for the provider's mask."""

    def __post_init__(self) -> None:
        check_choice(self.method, CloudMethod, "cloud method")
        if type(self.threshold) is not int or not 0 <= self.threshold <= 100:
            raise InvalidInputError(
                f"cloud threshold {self.threshold}: expected a whole percent, 0..100"
            )

    def __str__(self) -> str:
        return self.method if self.method == "provider" else f"likelihood >= {self.threshold}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetDefinition:
    """A named collection of tiles with one lattice a resolution group.

    `groups` is empty until the first scene fixes it (datasets created without `like` or
    `resolution`); `id` is unique for ever and never reused.
    """

    id: str
    name: str
    scheme: SchemeName
    length: int | None
    """Geocode length of a cell; None until the first scene fixes it."""
    placement: int | None
    """Leading characters that are hashed; None until the first scene fixes it."""
    groups: tuple[ResolutionGroup, ...] = ()
    """Finest first."""
    resampling: Resampling = "nearest"
    codec: Codec = "fast"
    reader: str | None = None
    """The reader whose defaults were taken."""
    cloud_rule: CloudRule = CloudRule()
    cloud_changes: int = 0
    """How often the rule was changed: who is told an older one late knows it by this."""
    created_us: int = 0

    def __post_init__(self) -> None:
        validate_name(self.name)
        check_choice(self.scheme, SchemeName, "scheme")
        check_choice(self.codec, Codec, "codec")
        check_choice(self.resampling, Resampling, "resampling")
        length_max = 12 if self.scheme == "geohash" else 26
        if self.length is not None and not 1 <= self.length <= length_max:
            raise InvalidInputError(
                f"length {self.length}: expected 1..{length_max} for {self.scheme}"
            )
        if self.placement is not None and not 1 <= self.placement <= (self.length or length_max):
            raise InvalidInputError(
                f"placement {self.placement}: expected 1..{self.length or length_max}"
                " (at most the cell length)"
            )
        if self.cloud_changes < 0:
            raise InvalidInputError(f"cloud_changes {self.cloud_changes}: expected 0 or more")
        resolutions = [group.resolution_m for group in self.groups]
        if sorted(set(resolutions)) != resolutions:
            raise InvalidInputError(
                f"resolution groups {resolutions}: expected different sizes, finest first"
            )

    @property
    def is_complete(self) -> bool:
        """Whether scheme, length, placement and groups are all fixed."""
        return bool(self.groups) and self.length is not None and self.placement is not None

    @property
    def crs(self) -> str:
        """The lattice's CRS."""
        return "EPSG:4326" if self.scheme == "geohash" else "EPSG:3857"

    def pixel_fingerprint(self) -> str:
        """Hex digest of the fields that shape pixels (never codec or cloud rule)."""
        shaping = {
            "scheme": self.scheme,
            "length": self.length,
            "groups": [plain_fields(group) for group in self.groups],
            "resampling": self.resampling,
        }
        return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict; `from_json` is its inverse.

        What was never changed is left out: an older geostore reads that definition, too.
        """
        value = plain_fields(self)
        value["groups"] = [plain_fields(group) for group in self.groups]
        value["cloud_rule"] = plain_fields(self.cloud_rule)
        if not self.cloud_changes:
            del value["cloud_changes"]
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        value = dict(value)
        value["groups"] = tuple(ResolutionGroup(**group) for group in value.get("groups", ()))
        value["cloud_rule"] = CloudRule(**value.get("cloud_rule", {}))
        return cls(**value)

    def with_cloud_rule(self, rule: CloudRule) -> Self:
        """The definition with another rule; itself where it is that rule already."""
        if rule == self.cloud_rule:
            return self
        return replace(self, cloud_rule=rule, cloud_changes=self.cloud_changes + 1)

    def with_groups(
        self, *, length: int, placement: int, groups: tuple[ResolutionGroup, ...]
    ) -> Self:
        """The definition completed by its first scene."""
        return replace(self, length=length, placement=placement, groups=groups)
