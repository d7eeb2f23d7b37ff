"""`geostore coverage`: its lines, its formats, and what it refuses."""

from __future__ import annotations

import json

from geostore.api.coverage import COVERAGE_FIELDS


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_windows_together_and_apart(geostore_run, small_store) -> None:
    coverage = ("--store", small_store.path, "coverage", "--exact-coverage")
    apart = lines(geostore_run(*coverage, "--window", "1M").stdout)
    together = lines(geostore_run(*coverage, "--window", "all").stdout)
    assert all(tuple(row) == COVERAGE_FIELDS for row in [*apart, *together])
    assert {row["window_start"] for row in apart} == {
        "2016-01-01T00:00:00Z",
        "2016-02-01T00:00:00Z",
    }
    assert {row["window_end"] for row in together} == {None}
    best = {row["geocode"]: row["coverage"] for row in together}
    for row in apart:
        assert row["coverage"] <= best[row["geocode"]]
        assert row["coverage_min"] == row["coverage_max"] == row["coverage"]
        assert row["tiles"] == len(row["scenes"]) == 1
    assert any(row["tiles"] == 2 for row in together)


def test_only_those_that_reach(geostore_run, small_store) -> None:
    coverage = ("--store", small_store.path, "coverage", "--window", "1Y")
    shares = {row["coverage"] for row in lines(geostore_run(*coverage, "--exact-coverage").stdout)}
    coverage = (*coverage, "--target", max(shares))
    every = lines(geostore_run(*coverage).stdout)
    some = lines(geostore_run(*coverage, "--reached").stdout)
    assert some == [row for row in every if row["reached"]]
    assert 0 < len(some) <= len(every)
    beyond = (*coverage[:-1], min(100, max(shares) + 1), "--reached")
    assert geostore_run(*beyond).stdout == ""
    table = geostore_run(*coverage, "--reached", "--format", "table").stdout.splitlines()
    assert len(table) == len(some) + 2
    assert table[-1].split()[-2:] != []
    csv = geostore_run(*coverage, "--format", "csv").stdout.splitlines()
    assert csv[0] == ",".join(COVERAGE_FIELDS)
    bounds = lines(geostore_run(*coverage, "--bounds").stdout)
    assert {row["reached"] for row in bounds} <= {True, False, None}
    clear = lines(geostore_run(*coverage, "--clear").stdout)
    assert {row["reached"] for row in clear} == {False}
    assert lines(geostore_run(*coverage, "--max-cloud", "50").stdout) == []


def test_wrong_usage(geostore_run, small_store) -> None:
    coverage = ("--store", small_store.path, "coverage")
    for wrong in (
        ("--window", "soon"),
        ("--target", "0"),
        ("--target", "101"),
        ("--max-cloud", "-1"),
        ("--origin", "yesterday"),
        ("--bounds", "--exact-coverage"),
    ):
        result = geostore_run(*coverage, *wrong, code=2)
        assert "Traceback" not in result.output
