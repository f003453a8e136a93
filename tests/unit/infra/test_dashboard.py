"""The Grafana dashboard: valid by Grafana's own schema, and every query asks for what the app shows."""

import json
import re
from itertools import combinations, pairwise
from typing import Any

import orjson
import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from tests.unit.infra.files import INFRA
from tests.unit.infra.promql import known_samples, selectors, unknown_names

FILE = INFRA / "grafana" / "dashboards" / "refract.json"
BOARD: dict[str, Any] = orjson.loads(FILE.read_bytes())
PANELS: list[dict[str, Any]] = BOARD["panels"]
GRAPHS = [panel for panel in PANELS if panel["type"] != "row"]
TARGETS = [target for panel in GRAPHS for target in panel["targets"]]
NUM_COLUMNS = 24
GRAPH_TYPES = {"stat", "timeseries", "bargauge"}
BUILT_IN = {"__rate_interval"}

BEYOND_THE_SCHEMA = {"step", "titleFormat", "textFormat"}
"""Of an annotation: what only Prometheus as its source knows."""

LEFT_OUT = {
    "refract_paused",
    "refract_records_dropped_total",
    "refract_records_embedded_total",
    "refract_truncated_tokens_total",
    "refract_forward_batches_total",
    "refract_embeddings_total",
    "refract_forward_items_total",
    "refract_invalid_embeddings_total",
    "refract_cache_hits_total",
    "refract_embedder_busy_seconds_total",
    "refract_tokens_per_second",
}
"""Metrics that tell nothing beside the ones that are shown: a finer or a coarser count of the same."""


def title_of(panel: dict[str, Any]) -> str:
    return str(panel["title"])


def filled(expression: str) -> str:
    """Returns a query as Grafana sends it, with something for every variable."""
    return re.sub(r"\[\$\w+\]", "[1m]", expression)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target['legendFormat']}")
def test_a_query_names_only_what_the_app_shows(target: dict[str, Any]) -> None:
    assert unknown_names(filled(target["expr"])) == []


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target['legendFormat']}")
def test_a_query_asks_for_one_app_alone(target: dict[str, Any]) -> None:
    assert target["expr"].count('job="$job"') == len(re.findall(r"\{", target["expr"]))
    assert all("job" in labels for _, labels in selectors(filled(target["expr"])))


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: f"{target['legendFormat']}")
def test_a_legend_names_labels_that_the_query_keeps(target: dict[str, Any]) -> None:
    assert target["legendFormat"]
    kept = {label.strip() for found in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in found.split(",")}
    assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) == kept - {"le"}


def test_every_metric_worth_a_look_is_shown() -> None:
    shown = {name for target in TARGETS for name, _ in selectors(filled(target["expr"]))}
    plain = {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}
    known = {re.sub(r"_(bucket|sum|count)$", "", name) for name in known_samples()} - {"up", "ALERTS"}
    assert known - plain == LEFT_OUT


@pytest.mark.parametrize("panel", GRAPHS, ids=title_of)
def test_a_panel_says_what_it_shows_and_in_which_unit(panel: dict[str, Any]) -> None:
    assert panel["type"] in GRAPH_TYPES
    assert panel["description"].endswith((".", "#dead-letters."))
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    if panel["type"] == "timeseries":
        assert panel["options"]["legend"]["showLegend"] is True


def test_ids_are_unique_and_titles_are_too_within_a_row() -> None:
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)
    titles = [panel["title"] for panel in GRAPHS if panel["type"] != "stat"]
    assert len(set(titles)) == len(titles)


def test_no_panel_overlaps_another_or_leaves_the_grid() -> None:
    places = [panel["gridPos"] for panel in PANELS]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= NUM_COLUMNS for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


def test_health_is_on_top_and_rows_follow_in_order() -> None:
    rows = [panel for panel in PANELS if panel["type"] == "row"]
    assert [row["title"] for row in rows] == [
        "Is it healthy",
        "Flow",
        "Embedders",
        "Store",
        "Dead letters and input",
        "API",
    ]
    assert all(one["gridPos"]["y"] < other["gridPos"]["y"] for one, other in pairwise(rows))
    first = [panel["type"] for panel in GRAPHS if panel["gridPos"]["y"] < rows[1]["gridPos"]["y"]]
    assert set(first) == {"stat"}


def test_every_variable_that_is_used_is_there_and_the_other_way_round() -> None:
    used = set(re.findall(r"\$\{?(\w+)", FILE.read_text(encoding="utf-8"))) - BUILT_IN - {"__all"}
    assert used == {variable["name"] for variable in BOARD["templating"]["list"]}
    for variable in BOARD["templating"]["list"]:
        if variable["type"] == "query":
            [(query, _)] = re.findall(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert unknown_names(query) == []


def test_it_is_what_grafanas_own_schema_knows() -> None:
    register_default_plugins()
    assert {place.rpartition(".")[2] for place in _unknown(BOARD)} == BEYOND_THE_SCHEMA
    wrong = {**BOARD, "panels": [{**GRAPHS[0], "titel": "x"}]}
    assert "panels.0.titel" in _unknown(wrong)


def _unknown(board: dict[str, Any]) -> list[str]:
    return _lost(board, orjson.loads(json.dumps(Dashboard.from_json(board), cls=JSONEncoder)))


def _lost(given: Any, read: Any, path: str = "") -> list[str]:
    """Returns the places of the given JSON that did not come through a reader which knows its own fields alone."""
    if isinstance(given, dict):
        missing = [f"{path}{name}" for name in given if not isinstance(read, dict) or name not in read]
        return missing + [
            found
            for name, part in given.items()
            if isinstance(read, dict) and name in read
            for found in _lost(part, read[name], f"{path}{name}.")
        ]
    if isinstance(given, list):
        pairs = zip(given, read, strict=True)
        return [found for number, (part, other) in enumerate(pairs) for found in _lost(part, other, f"{path}{number}.")]
    return [] if given == read else [path.removesuffix(".")]
