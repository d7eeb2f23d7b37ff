"""The door to serving a node, for whoever starts one: the command line, tests, programs."""

from geostore.server.node_process import run_node

__all__ = ["run_node"]
