"""The demo's tickets as figures are taken on them."""

import json
from collections.abc import Mapping
from typing import Any

from tests.config_trees import ROOT

DEMO = ROOT / "pipeline" / "demo"


def rows_of(name: str) -> list[dict[str, Any]]:
    """Returns the objects of one of the demo's files of JSON Lines."""
    return [json.loads(line) for line in (DEMO / name).read_text(encoding="utf-8").splitlines()]


def held_out_rows() -> list[dict[str, Any]]:
    """Returns the newest state of every ticket of the demo's stream that is not deleted."""
    newest: dict[str, dict[str, Any]] = {}
    for row in [*rows_of("tickets.jsonl"), *rows_of("tickets_extra.jsonl")]:
        if "_raw" not in row and row["updated_at"] >= newest.get(row["id"], row)["updated_at"]:
            newest[row["id"]] = row
    return [row for row in newest.values() if row["status"] != "deleted"]


def text_of(row: Mapping[str, Any]) -> str:
    """Returns a ticket as the models read it."""
    return f"{row['title']}\n\n{row['body']}"
