"""The query as a value: predicates, order, merge, cursor, explain. Pure: no I/O, no state.

Who answers a query (a catalog, a backend, a node) applies what is defined here, so that all
of them answer alike.
"""

from geostore.query.batches import Batches, LastTold, is_over
from geostore.query.coverage import (
    CoverageAnswer,
    CoverageGroups,
    CoverageRequest,
    Windows,
    with_cloud_at_most,
)
from geostore.query.evaluation import Facts, evaluate, unknown_with
from geostore.query.explain import Explain, ExplainNode, ExplainStep, stage_of
from geostore.query.expression import (
    AllOf,
    AnyOf,
    Expression,
    HasBands,
    InRegion,
    IsNull,
    Leaf,
    Not,
    OneOf,
    Predicate,
    TimeOverlaps,
    UnderGeocode,
    Within,
    leaves,
)
from geostore.query.leaf import LeafQuery
from geostore.query.merge import limit_batches, merge_batches
from geostore.query.order import Cursor, OrderKey, count_until, order_key, sort_batch
from geostore.query.predicate import RowFacts, matching
from geostore.query.rewriting import (
    conditions,
    conjuncts,
    dataset_bound,
    implied,
    simplified,
    time_bound,
)
from geostore.query.summary import Summary, SummaryKey, SummaryKeys, check_summarised, keys_from
from geostore.query.value import PercentRange, Query, SortKey

__all__ = [
    "AllOf",
    "AnyOf",
    "Batches",
    "CoverageAnswer",
    "CoverageGroups",
    "CoverageRequest",
    "Cursor",
    "Explain",
    "ExplainNode",
    "ExplainStep",
    "Expression",
    "Facts",
    "HasBands",
    "InRegion",
    "IsNull",
    "LastTold",
    "Leaf",
    "LeafQuery",
    "Not",
    "OneOf",
    "OrderKey",
    "PercentRange",
    "Predicate",
    "Query",
    "RowFacts",
    "SortKey",
    "Summary",
    "SummaryKey",
    "SummaryKeys",
    "TimeOverlaps",
    "UnderGeocode",
    "Windows",
    "Within",
    "check_summarised",
    "conditions",
    "conjuncts",
    "count_until",
    "dataset_bound",
    "evaluate",
    "implied",
    "is_over",
    "keys_from",
    "leaves",
    "limit_batches",
    "matching",
    "merge_batches",
    "order_key",
    "simplified",
    "sort_batch",
    "stage_of",
    "time_bound",
    "unknown_with",
    "with_cloud_at_most",
]
