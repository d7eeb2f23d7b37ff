"""A node on the network: gRPC services, admission, patience, health, drain, metrics page.

Everything here but the services themselves is the same whatever is served.
"""

from geostore.server.call import Call, CallSummary, current_call
from geostore.server.dispatch import FailedCall
from geostore.server.health import HealthService
from geostore.server.lifecycle import NodeServer, ServerState, run_until_signal
from geostore.server.limits import DEFAULT_POOLS, CallClass, PoolSize, ServerLimits

__all__ = [
    "DEFAULT_POOLS",
    "Call",
    "CallClass",
    "CallSummary",
    "FailedCall",
    "HealthService",
    "NodeServer",
    "PoolSize",
    "ServerLimits",
    "ServerState",
    "current_call",
    "run_until_signal",
]
