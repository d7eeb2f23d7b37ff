"""Scenes into tiles into a backend."""

from geostore.ingest.arrivals import Arrivals, look
from geostore.ingest.datasets import DatasetRequest, define
from geostore.ingest.pipeline import ingest
from geostore.ingest.plan import CELLS_MAX, plan_scene

__all__ = ["CELLS_MAX", "Arrivals", "DatasetRequest", "define", "ingest", "look", "plan_scene"]
