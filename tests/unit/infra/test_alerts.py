"""The alert rules: they name what there is, tell a person where to look, and ring when Prometheus evaluates them."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.live.worker import OUTAGE_S
from tests.config_trees import ROOT
from tests.docs.markdown import anchors
from tests.unit.infra.promql import selectors, unknown_names
from tests.unit.infra.rings import PROMETHEUS, RULES, SCRAPE_S, run_promtool

GROUPS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for group in GROUPS for rule in group["rules"]}
TESTS = sorted((PROMETHEUS / "tests").glob("*.yaml"))
OPERATING = ROOT / "docs" / "operating.md"


def expectations_of(alert: str) -> list[dict[str, Any]]:
    """Returns every expectation of an alert in the rules' own tests."""
    found = []
    for file in TESTS:
        for case in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]:
            found += [asked for asked in case["alert_rule_test"] if asked["alertname"] == alert]
    return found


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_names_only_what_the_app_shows(alert: str) -> None:
    expression = ALERTS[alert]["expr"]
    assert selectors(expression)
    assert unknown_names(expression) == []


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("refract_tokens", ["refract_tokens"]),
        ('refract_tokens_total{task="urgency"}', ["refract_tokens_total{task}"]),
        ("sum by (topic) (refract_tokens_total)", ["by topic"]),
        ("refract_app_ready and on (replica) refract_lag_seconds", []),
        ('refract_app_ready{replica="i1"}', ["refract_app_ready{replica}"]),
    ],
)
def test_a_name_that_does_not_exist_is_found(expression: str, wrong: list[str]) -> None:
    assert unknown_names(expression) == wrong


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_happens_and_where_to_read_what_to_do(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert re.search(r"[.]\s*$", rule["annotations"]["summary"])
    page, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert (ROOT / page).exists()
    assert anchor in anchors(ROOT / page)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_is_in_the_table_of_the_runbook_with_its_anchor(alert: str) -> None:
    _, _, anchor = ALERTS[alert]["annotations"]["runbook"].partition("#")
    [row] = [line for line in OPERATING.read_text(encoding="utf-8").splitlines() if f"| `{alert}` |" in line]
    assert f"(#{anchor})" in row


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_is_shown_ringing_and_silent(alert: str) -> None:
    assert {bool(asked["exp_alerts"]) for asked in expectations_of(alert)} == {True, False}


def test_a_restart_or_a_busy_moment_does_not_ring() -> None:
    assert min(_seconds(rule["for"]) for rule in ALERTS.values()) >= max(OUTAGE_S, 2 * SCRAPE_S)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_prometheus_rings_as_the_rules_own_tests_expect(path: Path) -> None:
    assert "SUCCESS" in run_promtool("test", "rules", str(path))


def test_prometheus_takes_the_rules_and_its_configuration() -> None:
    assert f"{len(ALERTS)} rules found" in run_promtool("check", "rules", str(RULES))
    assert "SUCCESS" in run_promtool("check", "config", "--syntax-only", str(PROMETHEUS / "prometheus.yaml"))


def test_the_configuration_scrapes_the_job_that_the_rules_expect() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text(encoding="utf-8"))
    assert "refract" in {job["job_name"] for job in config["scrape_configs"]}
    assert config["rule_files"] == [RULES.name]
    assert _seconds(config["global"]["scrape_interval"]) == SCRAPE_S


def _seconds(duration: str) -> int:
    return int(duration[:-1]) * {"s": 1, "m": 60, "h": 3600}[duration[-1]]
