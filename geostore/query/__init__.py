"""The query as a value: predicates, order, merge, cursor, explain. Pure: no I/O, no state.

Who answers a query (a catalog, a backend, a node) applies what is defined here, so that all
of them answer alike.
"""

from geostore.query.explain import Explain, ExplainNode, ExplainStep
from geostore.query.leaf import LeafQuery
from geostore.query.merge import limit_batches, merge_batches
from geostore.query.order import Cursor, OrderKey, count_until, order_key, sort_batch
from geostore.query.predicate import matching
from geostore.query.value import PercentRange, Query, SortKey

__all__ = [
    "Cursor",
    "Explain",
    "ExplainNode",
    "ExplainStep",
    "LeafQuery",
    "OrderKey",
    "PercentRange",
    "Query",
    "SortKey",
    "count_until",
    "limit_batches",
    "matching",
    "merge_batches",
    "order_key",
    "sort_batch",
]
