"""Where: geocodes and their cells, regions and the cells they take, pixel lattices.

Two schemes name cells, `GEOHASH` and `QUADTILE`; `scheme(name)` finds them. A `Region` is a
place that a query names; `covering` lists its cells. `make_groups` and `cell_window` lay the
pixels of tiles.
"""

from geostore.grid.cells import Scheme
from geostore.grid.cover import covering
from geostore.grid.geohash import GEOHASH
from geostore.grid.groups import (
    METRES_PER_DEGREE,
    default_length,
    default_placement,
    group_for,
    make_groups,
    pixel_size_m,
)
from geostore.grid.lattice import (
    LatticeWindow,
    cell_window,
    lattice_shape,
    lattice_window,
    part_within,
)
from geostore.grid.quadtile import MERCATOR_EXTENT_M, QUADTILE
from geostore.grid.region import Region, Relation
from geostore.grid.schemes import scheme

__all__ = [
    "GEOHASH",
    "MERCATOR_EXTENT_M",
    "METRES_PER_DEGREE",
    "QUADTILE",
    "LatticeWindow",
    "Region",
    "Relation",
    "Scheme",
    "cell_window",
    "covering",
    "default_length",
    "default_placement",
    "group_for",
    "lattice_shape",
    "lattice_window",
    "make_groups",
    "part_within",
    "pixel_size_m",
    "scheme",
]
