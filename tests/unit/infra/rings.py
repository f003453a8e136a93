"""Evaluates the alert rules with promtool over what the app showed, scrape by scrape."""

import shutil
import subprocess
from collections.abc import Collection, Iterable
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.config_trees import ROOT
from tests.unit.infra.promql import selectors

PROMETHEUS = ROOT / "infra" / "prometheus"
RULES = PROMETHEUS / "alerts.yaml"
SCRAPE_S = 15


def promtool() -> str:
    """Returns the path of promtool. Skips the test where there is none."""
    fetched = ROOT / "var" / "promtool" / "usr" / "bin" / "promtool"
    found = shutil.which("promtool") or (str(fetched) if fetched.exists() else None)
    if found is None:
        pytest.skip("promtool is not installed; infra/promtool.sh fetch gets it")
    return found


def run_promtool(*arguments: str) -> str:
    """Returns what promtool prints. Fails where it finds a fault."""
    done = subprocess.run([promtool(), *arguments], capture_output=True, text=True, check=False)  # noqa: S603 - ours
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def series_of(scrapes: Iterable[str], wanted: Collection[str]) -> dict[str, str]:
    """Returns promtool's input series of some samples in the answers of `/metrics`, one for each scrape."""
    shown: dict[str, dict[int, float]] = {}
    number = 0
    for number, text in enumerate(scrapes, start=1):
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name not in wanted:
                    continue
                labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
                shown.setdefault(f'{sample.name}{{job="refract",{labels}}}', {})[number] = sample.value
    return {name: " ".join(str(values.get(at, "_")) for at in range(1, number + 1)) for name, values in shown.items()}


def firing(alert: str, scrapes: Iterable[str], folder: Path) -> bool:
    """Returns whether Prometheus rings after the last scrape. Skips the test where there is no promtool."""
    program = promtool()
    rules = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"][0]["rules"]
    [expression] = [rule["expr"] for rule in rules if rule["alert"] == alert]
    series = series_of(scrapes, {name for name, _ in selectors(expression)})
    num_scrapes = max(len(values.split()) for values in series.values())
    test = {
        "interval": f"{SCRAPE_S}s",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) or vector(0)',
                "eval_time": f"{SCRAPE_S * (num_scrapes - 1)}s",
                "exp_samples": [{"labels": "{}", "value": 1}],
            }
        ],
    }
    file = folder / "test.yaml"
    given = {"rule_files": [str(RULES)], "evaluation_interval": f"{SCRAPE_S}s", "tests": [test]}
    file.write_text(yaml.safe_dump(given), encoding="utf-8")
    done = subprocess.run([program, "test", "rules", str(file)], capture_output=True, text=True, check=False)  # noqa: S603 - ours
    said = done.stdout + done.stderr
    assert done.returncode == 0 or "got: {} 0E+00" in said, said
    return done.returncode == 0
