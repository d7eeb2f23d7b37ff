"""Explain, as a transcript: what a person sees."""

from __future__ import annotations

import itertools
import json

import pytest

from geostore.query import Explain, ExplainNode

TEXT = """\
query
  time overlaps 2018
  cloud within ..20 %
structures that could be walked (rows each would give)
  time         400  <- walked
  cloud     20,132
plan
  walk time  (estimated 400, left 390)
  filter cloud  (estimated 20,132, left 80)
  sort time
matched 80 of 100,000 tiles
nodes asked: n1; skipped: n2, n3
ms: plan 250.00, select 125.00"""


def _explain() -> Explain:
    ticks = itertools.chain([0.0, 0.125, 1.0, 1.125, 2.0, 2.125])
    explain = Explain(clock=lambda: next(ticks))
    explain.predicates.update(time="overlaps 2018", cloud="within ..20 %")
    explain.considered.update(cloud=20_132, time=400)
    explain.structure = "time"
    with explain.stage("plan"):
        pass
    with explain.stage("select"):
        explain.add("walk", "time", estimated_rows=400, actual_rows=390)
        explain.add("filter", "cloud", estimated_rows=20_132, actual_rows=80)
        explain.add("sort", "time")
    with explain.stage("plan"):
        pass
    explain.rows_total, explain.rows_matched = 100_000, 80
    explain.nodes_asked.append("n1")
    explain.nodes_skipped += ["n2", "n3"]
    return explain


def test_the_text_reads() -> None:
    assert _explain().to_text() == TEXT


def test_the_json_has_the_same() -> None:
    value = json.loads(json.dumps(_explain().to_json()))
    assert value["structure"] == "time"
    assert value["considered"] == {"cloud": 20_132, "time": 400}
    assert value["stages_ms"] == {"plan": 250.0, "select": 125.0}
    assert [step["action"] for step in value["steps"]] == ["walk", "filter", "sort"]
    assert value["steps"][0]["estimated_rows"] == 400
    assert (value["nodes_asked"], value["nodes_skipped"]) == (["n1"], ["n2", "n3"])


def test_an_empty_query_says_so() -> None:
    assert Explain().to_text() == "query\n  all tiles\nplan"


def test_a_stage_that_fails_is_still_timed() -> None:
    ticks = iter([0.0, 1.0])
    explain = Explain(clock=lambda: next(ticks))
    with pytest.raises(ZeroDivisionError), explain.stage("walk"):
        _ = 1 / 0
    assert explain.stages_ms == {"walk": 1000.0}


CLUSTER_TEXT = """\
query
  all tiles
plan
matched 7 tiles
nodes asked: a, bb; skipped: c
slots asked about: 1,366
  a   1,366 slots          7 rows
  bb      0 slots          0 rows  failed: gone"""


def test_a_cluster_lists_its_nodes() -> None:
    explain = Explain(rows_matched=7, nodes_asked=["a", "bb"], nodes_skipped=["c"])
    explain.slots_matched = 1366
    explain.nodes.append(ExplainNode(name="a", slots=1366, rows=7))
    explain.nodes.append(ExplainNode(name="bb", slots=0, rows=0, error="gone"))
    assert explain.to_text() == CLUSTER_TEXT
    value = json.loads(json.dumps(explain.to_json()))
    assert value["slots_matched"] == 1366
    assert value["nodes"][1] == {"name": "bb", "slots": 0, "rows": 0, "error": "gone"}
    assert "nodes" not in Explain().to_json()


def test_parts_of_nodes_add_up() -> None:
    total = Explain()
    for structure, stage_ms in (("time", 5.0), ("cloud", 3.0)):
        part = Explain(rows_total=10, rows_matched=4, structure=structure)
        part.predicates["time"] = "overlaps 2018"
        part.considered.update(time=9, cloud=20)
        part.add("walk", structure, estimated_rows=6, actual_rows=5)
        part.add("filter", "cloud", actual_rows=4)
        part.stages_ms["select"] = stage_ms
        total.absorb(part)
    assert (total.rows_total, total.rows_matched, total.structure) == (20, 8, "several")
    assert total.considered == {"time": 18, "cloud": 40}
    assert [(step.action, step.subject, step.actual_rows) for step in total.steps] == [
        ("walk", "time", 5),
        ("walk", "cloud", 5),
        ("filter", "cloud", 8),
    ]
    assert total.stages_ms == {"select": 5.0}


def test_a_nodes_own_steps_stay_together_before_those_that_all_took() -> None:
    total = Explain()
    for tested, own in (("41", ["scan", "filter"]), ("26", ["walk"]), ("41", ["scan", "filter"])):
        part = Explain()
        for action in own:
            part.add(action, tested, actual_rows=1)
        part.add("sort", "time", actual_rows=1)
        total.absorb(part)
    assert [(step.action, step.subject, step.actual_rows) for step in total.steps] == [
        ("scan", "41", 2),
        ("filter", "41", 2),
        ("walk", "26", 1),
        ("sort", "time", 3),
    ]
