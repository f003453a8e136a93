"""What an expression in PromQL names, held against the metrics that there are."""

from typing import Any

import promql_parser
from promql_parser import AggregateExpr, BinaryExpr, Expr, VectorSelector

from tests.docs.generate import metric_families

SCRAPED = frozenset({"job", "instance"})
"""Labels that Prometheus puts on every sample it scrapes."""

REPLICA = frozenset({"process", "replica"})
FOREIGN = {"up": SCRAPED, "ALERTS": SCRAPED | {"alertname", "alertstate", "severity"}}
"""What Prometheus itself makes."""


def known_samples() -> dict[str, frozenset[str]]:
    """Returns the labels of every sample that the app shows, as they are once scraped, by name."""
    known: dict[str, frozenset[str]] = dict(FOREIGN)
    for process, name, kind, labels, _ in metric_families():
        own = SCRAPED | set(labels) | (frozenset() if process == "whole app" else REPLICA)
        if kind == "histogram":
            known |= {f"{name}_bucket": own | {"le"}, f"{name}_sum": own, f"{name}_count": own}
        else:
            known[name] = own
    return known


def parsed(expression: str) -> Expr:
    """Returns the syntax tree. Raises ValueError where the expression is not PromQL."""
    tree: Expr = promql_parser.parse(expression)
    return tree


def selectors(expression: str) -> list[tuple[str, frozenset[str]]]:
    """Returns each sample that is named, with the labels its selector asks for."""
    return [
        (node.name or "", frozenset(matcher.name for matcher in node.matchers.matchers))
        for node in _nodes(parsed(expression))
        if isinstance(node, VectorSelector)
    ]


def grouped(expression: str) -> frozenset[str]:
    """Returns every label by which something is summed up or matched."""
    found: set[str] = set()
    for node in _nodes(parsed(expression)):
        if isinstance(node, AggregateExpr) and node.modifier is not None:
            found |= set(node.modifier.labels)
        if isinstance(node, BinaryExpr) and node.modifier is not None and node.modifier.matching is not None:
            found |= set(node.modifier.matching.labels)
    return frozenset(found)


def unknown_names(expression: str) -> list[str]:
    """Returns what the expression names and the app does not have: samples, and labels of samples."""
    known, there = known_samples(), set(SCRAPED)
    wrong = []
    for name, labels in selectors(expression):
        there |= known.get(name, frozenset())
        wrong += [name] if name not in known else [f"{name}{{{label}}}" for label in sorted(labels - known[name])]
    return wrong + [f"by {label}" for label in sorted(grouped(expression) - there)]


def _nodes(tree: Expr) -> list[Any]:
    found: list[Any] = []
    promql_parser.walk(tree, found.append)
    return found
