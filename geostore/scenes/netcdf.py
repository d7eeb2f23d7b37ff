"""Reader `netcdf`: variables on grids by the CF conventions, one scene a time step.

netCDF-3 and netCDF-4, read through a child process. A variable whose dimensions are a time,
rows and columns gives one band to each step's scene; a further dimension gives a band for each
of its places; one without a time belongs to every step. What lies on no even grid is left out
and named in the scene's properties.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pyproj import CRS

from geostore.errors import InvalidInputError, UnreadableSourceError
from geostore.raster.positions import native_pixel_size_m
from geostore.raster.projection import transformer
from geostore.raster.source import SourceGrid
from geostore.scenes.isolated import IsolatedFile
from geostore.scenes.netcdf_cf import (
    Axis,
    Missing,
    Variable,
    axis_kind,
    describe_flags,
    find_crs,
    fit_axis,
    missing_numbers,
)
from geostore.scenes.netcdf_pixels import NetcdfPixels, read_values
from geostore.scenes.netcdf_steps import (
    Step,
    spans,
    spans_between,
    stated_span,
    step_order,
    step_suffix,
)
from geostore.scenes.netcdf_times import is_time_unit
from geostore.scenes.scene import ReaderDefaults, ReadOptions, Scene, SceneBand
from geostore.scenes.times import time_from_name
from geostore.types import BandInfo

if TYPE_CHECKING:
    from geostore.scenes.source import Source

__all__ = ["NetcdfReader"]

CHILD = "geostore.scenes.netcdf_process"
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_CLASSIC_MAGIC = (b"CDF\x01", b"CDF\x02", b"CDF\x05")
_SUFFIXES = (".nc", ".nc4", ".nc3", ".cdf", ".netcdf")
_HEAD_BYTES = 1 << 16
_MARKS_OF_NETCDF = (b"_NCProperties", b"_Netcdf4", b"DIMENSION_SCALE")
"""What the netCDF library writes into an HDF5 file near its start."""

AXIS_VALUES_MAX = 1 << 20
STEPS_MAX = 20_000
BANDS_MAX = 1024
"""Of one step."""
SOURCES_MAX = 200_000
"""Bands of all steps together: each is an object that is held while the file is ingested."""
BLOCK_PX = 1 << 18
"""Rows are read together up to so many pixels where a variable lies in one piece."""
NAMED_MAX = 64
TEXT_CHARACTERS_MAX = 500
STEM_CHARACTERS_MAX = 180

_BAND_NAME = re.compile(r"^[A-Za-z][A-Za-z0-9._-]{0,63}$")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


class NetcdfReader:
    """Reader `netcdf`."""

    name = "netcdf"
    defaults = ReaderDefaults()
    bands: tuple[BandInfo, ...] = ()

    def claims(self, source: Source) -> bool:
        """By first bytes; HDF5 files that are not netCDF's own are left to others."""
        return not source.is_dir and any(self._is_member(source, one) for one in source.names())

    def _is_member(self, source: Source, member: str) -> bool:
        has_suffix = PurePosixPath(member).suffix.lower() in _SUFFIXES
        if source.is_archive and not has_suffix:
            return False
        head = source.head(member, 8)
        if head.startswith(_CLASSIC_MAGIC):
            return True
        if head != HDF5_MAGIC:
            return False
        return has_suffix or any(
            mark in source.head(member, _HEAD_BYTES) for mark in _MARKS_OF_NETCDF
        )

    def open(self, source: Source, options: ReadOptions) -> list[Scene]:
        members = [one for one in source.names() if self._is_member(source, one)]
        if not members:
            raise UnreadableSourceError(
                f"{source.path}: no netCDF file; expected one, or an archive of some"
            )
        with ExitStack() as opened:
            scenes: list[Scene] = []
            for member in members:
                for scene in _open_file(self.name, source, member, options):
                    opened.callback(scene.close)
                    scenes.append(scene)
            opened.pop_all()
        return scenes


def _open_file(reader: str, source: Source, member: str, options: ReadOptions) -> list[Scene]:
    local = source.local_file(member)
    file = IsolatedFile(
        CHILD, library="netCDF", name=source.shown(member), path=local.path, on_close=local.close
    )
    with ExitStack() as opened:
        opened.callback(file.close)
        try:
            return _Opener(reader, source, member, file, options).scenes()
        except UnreadableSourceError as error:
            if file.name in str(error):
                raise
            raise UnreadableSourceError(f"{file.name}: {error}") from error
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            if isinstance(error, InvalidInputError):
                raise
            raise UnreadableSourceError(
                f"{file.name}: the netCDF library describes it in no sensible way ({error!r:.200})"
            ) from error


@dataclass(frozen=True, slots=True)
class _Layer:
    """A variable that lies on a grid: its bands, before they are given to steps."""

    variable: Variable
    grid: SourceGrid
    axes: tuple[int, int]
    """Which dimensions are rows and columns."""
    time: tuple[int, str] | None
    """Which dimension is time, and its name."""
    extra: int | None
    """Which dimension has one band a place."""
    labels: tuple[str, ...]
    missing: Missing


@dataclass
class _Described:
    """The file as the child describes it, in our terms."""

    model: str
    attributes: dict[str, Any]
    groups: list[str]
    variables: dict[str, Variable]
    left_out: dict[str, str] = field(default_factory=dict)
    """Variables that make no band, and why."""

    @classmethod
    def of(cls, value: dict[str, Any]) -> _Described:
        return cls(
            str(value["model"]),
            dict(value["attributes"]),
            [str(name) for name in value["groups"]],
            {
                str(name): Variable(
                    str(name),
                    None if one["dtype"] is None else str(one["dtype"]),
                    tuple(str(dimension) for dimension in one["dimensions"]),
                    tuple(int(side) for side in one["shape"]),
                    None if not one["chunks"] else tuple(int(side) for side in one["chunks"]),
                    dict(one["attributes"]),
                )
                for name, one in dict(value["variables"]).items()
            },
        )

    def beside_grids(self) -> set[str]:
        """Variables that only describe others: coordinates, bounds, grid mappings."""
        names = {one.name for one in self.variables.values() if one.dimensions == (one.name,)}
        for one in self.variables.values():
            for attribute in ("coordinates", "bounds", "climatology", "grid_mapping"):
                names.update(word.strip(":") for word in one.text(attribute).split())
        return names


class _Opener:
    """Makes the scenes of one file."""

    def __init__(
        self, reader: str, source: Source, member: str, file: IsolatedFile, options: ReadOptions
    ) -> None:
        self._reader = reader
        self._source = source
        self._member = member
        self._file = file
        self._options = options
        self._about = _Described.of(file.ask({"do": "describe"}).value)
        self._values: dict[str, npt.NDArray[Any]] = {}
        self._grids: dict[tuple[Any, ...], SourceGrid | str] = {}

    def scenes(self) -> list[Scene]:
        layers = self._layers()
        if not layers:
            raise UnreadableSourceError(self._why_nothing())
        steps_of = {
            layer.time[1]: self._steps(layer.time[1]) for layer in layers if layer.time is not None
        }
        steps = sorted(set().union(*steps_of.values()), key=step_order) if steps_of else []
        if len(steps) > STEPS_MAX:
            raise UnreadableSourceError(f"{len(steps)} time steps; expected {STEPS_MAX} at most")
        infos = self._infos(layers)
        if len(infos) * max(1, len(steps)) > SOURCES_MAX:
            raise UnreadableSourceError(
                f"{len(infos)} bands at {len(steps)} time steps; expected {SOURCES_MAX} together"
                " at most: split the file by time"
            )
        prefix = self._prefix()
        fingerprint = self._source.fingerprint([self._member], self._member.rpartition("/")[0])
        properties = self._properties(layers)
        whole_days = all(
            step.start_us is None or step.start_us % 86_400_000_000 == 0 for step in steps
        )
        with ExitStack() as made:
            scenes: list[Scene] = []
            taken: Counter[str] = Counter()
            for number, step in enumerate(steps or [self._lone_step()]):
                bands = self._bands(infos, step, steps_of, made)
                suffix = step_suffix(step, number, whole_days=whole_days) if len(steps) > 1 else ""
                taken[suffix] += 1
                again = f"-{taken[suffix]}" if taken[suffix] > 1 else ""
                scenes.append(
                    Scene(
                        id=f"{prefix}{suffix}{again}",
                        reader=self._reader,
                        path=self._source.path,
                        time_us=step.start_us,
                        time_end_us=step.end_us,
                        platform=None,
                        bands=tuple(bands),
                        properties=dict(properties),
                        fingerprint=fingerprint,
                    )
                )
            made.pop_all()
        return scenes

    def _prefix(self) -> str:
        stem = _NOT_IN_NAMES.sub("_", PurePosixPath(self._member).stem)[:STEM_CHARACTERS_MAX]
        return f"{stem.strip('._-') or 'raster'}-{self._source.sha256(self._member)[:8]}"

    def _why_nothing(self) -> str:
        reasons = [f"{name}: {why}" for name, why in list(self._about.left_out.items())[:5]]
        if self._about.groups:
            reasons.append(f"groups {', '.join(self._about.groups[:5])} are not looked into")
        found = "; ".join(reasons)[:600] or "it has no variable of numbers in two dimensions"
        return f"no variable lies on an even grid ({found}); expected rows and columns with a CRS"

    # ------------------------------------------------------------- which variables

    def _layers(self) -> list[_Layer]:
        beside = self._about.beside_grids()
        layers = []
        for name, variable in self._about.variables.items():
            if name in beside or len(variable.shape) < 2 or variable.dtype == "text":
                continue
            found = self._layer(variable)
            if isinstance(found, str):
                self._about.left_out[name] = found
            else:
                layers.append(found)
        return layers

    def _layer(self, variable: Variable) -> _Layer | str:
        """The variable's place, or why it has none."""
        if variable.dtype is None:
            return "its values are no plain numbers, or lie in other files"
        kinds = [self._kind(dimension) for dimension in variable.dimensions]
        if kinds.count("x") != 1 or kinds.count("y") != 1:
            return f"dimensions {_shown(variable)} are not rows and columns with coordinates"
        if 0 in variable.shape:
            return "it is empty"
        y, x = kinds.index("y"), kinds.index("x")
        grid = self._grid(variable, y, x)
        if isinstance(grid, str):
            return grid
        times = [axis for axis, kind in enumerate(kinds) if kind == "time"]
        others = [
            axis for axis, kind in enumerate(kinds) if kind == "other" and variable.shape[axis] > 1
        ]
        if len(times) > 1 or len(others) > 1:
            return (
                f"{len(variable.shape)} dimensions {_shown(variable)}: expected rows, columns,"
                " a time and one more at most"
            )
        extra = others[0] if others else None
        return _Layer(
            variable,
            grid,
            (y, x),
            (times[0], variable.dimensions[times[0]]) if times else None,
            extra,
            () if extra is None else self._labels(variable, extra),
            missing_numbers(variable),
        )

    def _kind(self, dimension: str) -> str:
        coordinate = self._about.variables.get(dimension)
        if coordinate is not None and coordinate.dimensions == (dimension,):
            if coordinate.dtype in {None, "text"}:
                return "other"
            return axis_kind(coordinate)
        return "time" if self._time_along(dimension) is not None else "other"

    def _time_along(self, dimension: str) -> Variable | None:
        """The one-dimensional variable that tells a dimension's times."""
        own = self._about.variables.get(dimension)
        candidates = [own] if own is not None else list(self._about.variables.values())
        return next(
            (
                one
                for one in candidates
                if one.dimensions == (dimension,) and is_time_unit(one.text("units"))
            ),
            None,
        )

    def _grid(self, variable: Variable, y: int, x: int) -> SourceGrid | str:
        variables = self._about.variables
        down, across = variables[variable.dimensions[y]], variables[variable.dimensions[x]]
        block = self._block(variable, y, x)
        key = (down.name, across.name, variable.text("grid_mapping"), block)
        if key not in self._grids:
            self._grids[key] = self._place(variable, down, across, block)
        return self._grids[key]

    def _place(
        self, variable: Variable, down: Variable, across: Variable, block: tuple[int, int]
    ) -> SourceGrid | str:
        crs = find_crs(variable, across, down, self._about.variables)
        if crs is None:
            return "nothing states its CRS (no grid_mapping, coordinates in no degrees)"
        transformer(crs.to_wkt(), "EPSG:4326")  # raises where PROJ finds no way
        rows = self._axis(down, crs, None)
        columns = self._axis(across, crs, _step_of(rows))
        if isinstance(rows, str) and not isinstance(columns, str) and down.shape[0] == 1:
            rows = self._axis(down, crs, -abs(columns.step))
        if isinstance(rows, str) or isinstance(columns, str):
            return rows if isinstance(rows, str) else str(columns)
        return SourceGrid(
            crs.to_wkt(),
            (columns.step, 0.0, columns.start, 0.0, rows.step, rows.start),
            rows.count,
            columns.count,
            *block,
        )

    def _axis(self, coordinate: Variable, crs: CRS, fallback_step: float | None) -> Axis | str:
        values = self._read_all(coordinate)
        return fit_axis(coordinate, values.astype(np.float64), crs, fallback_step)

    def _block(self, variable: Variable, y: int, x: int) -> tuple[int, int]:
        height, width = variable.shape[y], variable.shape[x]
        if variable.chunks is not None and len(variable.chunks) == len(variable.shape):
            chunk_height, chunk_width = variable.chunks[y], variable.chunks[x]
            return max(1, min(chunk_height, height)), max(1, min(chunk_width, width))
        return max(1, min(height, BLOCK_PX // max(1, width))), width

    def _labels(self, variable: Variable, axis: int) -> tuple[str, ...]:
        """What the places along a dimension are called: its coordinate's values, else numbers."""
        dimension, count = variable.dimensions[axis], variable.shape[axis]
        coordinate = self._about.variables.get(dimension)
        if coordinate is not None and coordinate.dimensions[:1] == (dimension,):
            if coordinate.dtype == "text":
                answer = self._file.ask({"do": "labels", "variable": dimension}).value
                found = [str(one) for one in answer["labels"]]
                if len(found) == count:
                    return tuple(found)
            elif coordinate.dtype is not None and coordinate.dimensions == (dimension,):
                values = self._read_all(coordinate)
                return tuple(f"{value:g}" for value in values.tolist())
        return tuple(str(number) for number in range(1, count + 1))

    def _read_all(self, variable: Variable) -> npt.NDArray[Any]:
        """All of a coordinate's values, as they are meant."""
        if variable.name not in self._values:
            count = math.prod(variable.shape)
            if count > AXIS_VALUES_MAX or variable.dtype in {None, "text"}:
                raise UnreadableSourceError(
                    f"coordinate {variable.name!r} has {count} values of {variable.dtype};"
                    f" expected {AXIS_VALUES_MAX} numbers at most"
                )
            stored = read_values(
                self._file, variable, [0] * len(variable.shape), list(variable.shape)
            )
            self._values[variable.name] = stored.view(
                variable.meant_dtype or variable.dtype
            ).reshape(variable.shape)
        return self._values[variable.name]

    # ------------------------------------------------------------- which bands

    def _infos(self, layers: Iterable[_Layer]) -> list[tuple[BandInfo, _Layer, int]]:
        """Each band of a step: what it is, whose, and its place along the extra dimension."""
        found: list[tuple[BandInfo, _Layer, int]] = []
        taken: set[str] = set()
        layers = list(layers)
        for layer in layers:
            size_m = native_pixel_size_m(layer.grid)
            if len(found) + max(1, len(layer.labels)) > BANDS_MAX:
                raise UnreadableSourceError(
                    f"more than {BANDS_MAX} bands a step; {layer.variable.name!r} alone has"
                    f" {max(1, len(layer.labels))}"
                )
            for place, label in enumerate(layer.labels or ("",)):
                whole = f"{layer.variable.name}_{label}" if label else layer.variable.name
                # The only variable of a file of many bands says nothing by its name.
                short = label if len(layers) == 1 and _BAND_NAME.match(label) else whole
                found.append((_band_info(layer, _band_name(short, taken), size_m), layer, place))
        return found

    def _bands(
        self,
        infos: Iterable[tuple[BandInfo, _Layer, int]],
        step: Step,
        steps_of: dict[str, dict[Step, int]],
        made: ExitStack,
    ) -> list[SceneBand]:
        bands = []
        for info, layer, place in infos:
            at = [0] * len(layer.variable.shape)
            if layer.extra is not None:
                at[layer.extra] = place
            if layer.time is not None:
                axis, dimension = layer.time
                if step not in steps_of[dimension]:
                    continue  # a variable with times of its own
                at[axis] = steps_of[dimension][step]
            pixels = NetcdfPixels(
                self._file, layer.variable, layer.grid, layer.axes, tuple(at), layer.missing
            )
            made.callback(pixels.close)
            bands.append(SceneBand(info, pixels))
        return bands

    # ------------------------------------------------------------- when

    def _steps(self, dimension: str) -> dict[Step, int]:
        """The times along a dimension, each with its index."""
        variable = self._time_along(dimension)
        if variable is None:
            raise UnreadableSourceError(f"dimension {dimension!r} has no times")
        found: dict[Step, int] = {}
        seen: dict[tuple[int | None, int | None], int] = {}
        for index, (start, end) in enumerate(self._spans(variable)):
            again = seen.get((start, end), 0)
            seen[start, end] = again + 1
            found[Step(start, end, again)] = index
        return found

    def _spans(self, variable: Variable) -> list[tuple[int | None, int | None]]:
        bounds = self._about.variables.get(variable.text("bounds"))
        if bounds is None or bounds.shape != (*variable.shape, 2):
            return spans(variable, self._read_all(variable))
        return spans_between(variable, bounds, self._read_all(bounds))

    def _lone_step(self) -> Step:
        """When a file without a time axis was taken."""
        scalars = [
            one
            for one in self._about.variables.values()
            if is_time_unit(one.text("units"))
            and all(side == 1 for side in one.shape)
            and one.dtype not in {None, "text"}
            and one.name not in self._bounds()
        ]
        if len(scalars) == 1:
            ((start, end),) = self._spans(scalars[0])
            if start is not None:
                return Step(start, end, 0)
        span = (
            self._options.time
            or stated_span(self._about.attributes)
            or time_from_name(self._member)
        )
        return Step(span.start_us if span else None, span.end_us if span else None, 0)

    def _bounds(self) -> set[str]:
        return {one.text("bounds") for one in self._about.variables.values()}

    # ------------------------------------------------------------- what else

    def _properties(self, layers: Iterable[_Layer]) -> dict[str, Any]:
        crs = CRS.from_wkt(next(iter(layers)).grid.crs_wkt)
        identity = crs.to_json_dict().get("id") or {}
        tags = {
            name[:128]: str(value)[:TEXT_CHARACTERS_MAX]
            for name, value in sorted(self._about.attributes.items())[:NAMED_MAX]
            if str(value)
        }
        left_out = dict(list(self._about.left_out.items())[:NAMED_MAX])
        properties = {
            "driver": "netCDF",
            "model": self._about.model,
            "crs": f"{identity['authority']}:{identity['code']}" if identity else crs.name[:200],
            "tags": tags,
            "left_out": {name[:128]: why[:200] for name, why in left_out.items()},
        }
        return {name: value for name, value in properties.items() if value}


def _step_of(axis: Axis | str) -> float | None:
    return None if isinstance(axis, str) else abs(axis.step)


def _shown(variable: Variable) -> str:
    return f"({', '.join(variable.dimensions)})"[:100]


def _band_name(wanted: str, taken: set[str]) -> str:
    """A name that a band can have and no other has."""
    name = _NOT_IN_NAMES.sub("_", wanted)[:60].strip("_") or "band"
    if not name[0].isalpha():
        name = f"v_{name}"
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    taken.add(candidate)
    return candidate


def _band_info(layer: _Layer, name: str, resolution_m: float) -> BandInfo:
    variable = layer.variable
    role, class_names, bitfields = describe_flags(variable)
    said = variable.text("long_name") or variable.text("standard_name")
    return BandInfo(
        name=name,
        dtype=variable.meant_dtype or "",
        nodata=layer.missing.nodata,
        role=role,
        scale=variable.number("scale_factor", 1.0),
        offset=variable.number("add_offset", 0.0),
        unit=variable.text("units")[:100] or None,
        description=said[:TEXT_CHARACTERS_MAX] or None,
        native_resolution_m=resolution_m,
        class_names=class_names,
        bitfields=bitfields,
    )
