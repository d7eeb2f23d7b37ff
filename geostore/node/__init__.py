"""One node without sockets: tile files, catalog, records; staged and committed scenes."""

from geostore.node.directory import FORMAT_VERSION, StoreDirectory
from geostore.node.disk import StepHook
from geostore.node.node import Mode, Node, rebuild_store
from geostore.types.report import Problem, ProblemKind, Progress, StoreStatus, VerifyReport

__all__ = [
    "FORMAT_VERSION",
    "Mode",
    "Node",
    "Problem",
    "ProblemKind",
    "Progress",
    "StepHook",
    "StoreDirectory",
    "StoreStatus",
    "VerifyReport",
    "rebuild_store",
]
