"""Small HDF4-EOS granules as MODIS has them, made for tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pyhdf.SD import SD, SDC

__all__ = ["SINUSOIDAL", "TestGrid", "core_metadata", "struct_metadata", "write_granule"]

SINUSOIDAL = (
    "Projection=GCTP_SNSOID\n"
    "ProjParams=(6371007.181000,0,0,0,0,0,0,0,0,0,0,0,0)\n"
    "SphereCode=-1\n"
    "GridOrigin=HDFE_GD_UL\n"
)
_KINDS = {
    "int8": SDC.INT8,
    "uint8": SDC.UINT8,
    "int16": SDC.INT16,
    "uint16": SDC.UINT16,
    "int32": SDC.INT32,
    "uint32": SDC.UINT32,
    "float32": SDC.FLOAT32,
    "float64": SDC.FLOAT64,
}


@dataclass
class TestGrid:
    """A grid and its layers: name to (array, attributes) or (array, attributes, dimensions)."""

    __test__ = False

    name: str
    layers: dict[str, tuple[Any, ...]]
    upper_left: tuple[float, float] = (1_111_950.519667, 5_559_752.598333)
    pixel: float = 926.6254330558333
    projection: str = SINUSOIDAL
    corners: str = ""
    """In place of the lines that state the corners."""
    listed: tuple[str, ...] = field(default=())
    """Layers that the metadata name and the file lacks."""

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns), of the first layer of two dimensions."""
        for layer in self.layers.values():
            names = layer[2] if len(layer) > 2 else ("YDim", "XDim")
            shape = np.asarray(layer[0]).shape
            if "YDim" in names:
                return shape[names.index("YDim")], shape[names.index("XDim")]
        raise AssertionError("a grid without a layer")


def struct_metadata(grids: list[TestGrid], swaths: str = "") -> str:
    """StructMetadata.0 in the words of the HDF-EOS library."""
    text = f"GROUP=SwathStructure\n{swaths}END_GROUP=SwathStructure\nGROUP=GridStructure\n"
    for number, grid in enumerate(grids, start=1):
        height, width = grid.size
        left, top = grid.upper_left
        right, bottom = left + width * grid.pixel, top - height * grid.pixel
        corners = grid.corners or (
            f"UpperLeftPointMtrs=({left:f},{top:f})\nLowerRightMtrs=({right:f},{bottom:f})\n"
        )
        text += f'\tGROUP=GRID_{number}\n\t\tGridName="{grid.name}"\n'
        text += f"\t\tXDim={width}\n\t\tYDim={height}\n{corners}{grid.projection}"
        text += "\t\tGROUP=DataField\n"
        fields = {name: layer[2:] for name, layer in grid.layers.items()}
        fields |= dict.fromkeys(grid.listed, ())
        for index, (name, dimensions) in enumerate(fields.items(), start=1):
            names = ",".join(f'"{one}"' for one in (dimensions or (("YDim", "XDim"),))[0])
            text += f'OBJECT=DataField_{index}\nDataFieldName="{name}"\nDimList=({names})\n'
            text += f"END_OBJECT=DataField_{index}\n"
        text += f"\t\tEND_GROUP=DataField\n\tEND_GROUP=GRID_{number}\n"
    return text + "END_GROUP=GridStructure\nEND\n"


def core_metadata(values: Mapping[str, str], additional: Mapping[str, str] | None = None) -> str:
    """CoreMetadata.0 with these values, as the ECS toolkit writes them."""
    text = "\nGROUP                  = INVENTORYMETADATA\n  GROUPTYPE            = MASTERGROUP\n"
    for name, value in values.items():
        text += f"    OBJECT                 = {name}\n      NUM_VAL              = 1\n"
        text += f"      VALUE                = {value}\n    END_OBJECT             = {name}\n"
    for number, (name, value) in enumerate((additional or {}).items(), start=1):
        text += (
            "  OBJECT = ADDITIONALATTRIBUTESCONTAINER\n"
            f'    CLASS = "{number}"\n'
            f'    OBJECT = ADDITIONALATTRIBUTENAME\n      VALUE = "{name}"\n'
            "    END_OBJECT = ADDITIONALATTRIBUTENAME\n"
            "    GROUP = INFORMATIONCONTENT\n      OBJECT = PARAMETERVALUE\n"
            f'        VALUE = "{value}"\n      END_OBJECT = PARAMETERVALUE\n'
            "    END_GROUP = INFORMATIONCONTENT\n"
            "  END_OBJECT = ADDITIONALATTRIBUTESCONTAINER\n"
        )
    return text + "END_GROUP              = INVENTORYMETADATA\n\nEND\n"


def _set(target: Any, name: str, value: Any) -> None:
    attribute = target.attr(name)
    if isinstance(value, str):
        attribute.set(SDC.CHAR8, value)
    elif isinstance(value, list):
        whole = all(isinstance(one, int) for one in value)
        attribute.set(SDC.INT32 if whole else SDC.FLOAT64, value)
    else:
        attribute.set(SDC.INT32 if isinstance(value, int) else SDC.FLOAT64, value)


def write_granule(
    path: Path,
    grids: list[TestGrid],
    *,
    core: str | None = None,
    attributes: Mapping[str, str] | None = None,
    struct: str | None = None,
) -> Path:
    """Writes a granule; `struct` replaces what the grids say of themselves ("" leaves it out)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = SD(str(path), SDC.WRITE | SDC.CREATE | SDC.TRUNC)
    struct = struct_metadata(grids) if struct is None else struct
    for name, value in {
        **({"StructMetadata.0": struct} if struct else {}),
        **({"CoreMetadata.0": core} if core else {}),
        **(attributes or {}),
    }.items():
        _set(file, name, value)
    for grid in grids:
        for name, layer in grid.layers.items():
            data = np.ascontiguousarray(layer[0])
            array = file.create(name, _KINDS[data.dtype.name], data.shape)
            dimensions = layer[2] if len(layer) > 2 else ("YDim", "XDim")
            for axis, dimension in enumerate(dimensions):
                array.dim(axis).setname(f"{dimension}:{grid.name}")
            array.setcompress(SDC.COMP_DEFLATE, 6)
            for key, value in layer[1].items():
                _set(array, key, value)
            array[:] = data
            array.endaccess()
    file.end()
    return path
