"""Writes the parts of docs that the code knows best. `make docs` runs it; a unit test fails where a page is older.

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`; what is around it is written by hand.
"""

import ast
import inspect
import pkgutil
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import typer
from prometheus_client import CollectorRegistry
from typer.main import get_command

from pipeline import metrics
from pipeline.cli.exits import MEANINGS
from pipeline.cli.main import app
from pipeline.config.describe import KeyDoc, config_keys
from pipeline.engine.catalogue import STYLES, CatalogueEntry, catalogue
from tests.config_trees import ROOT

_PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Rewrites every page whose generated parts have changed."""
    for page in sorted((ROOT / "docs").rglob("*.md")):
        before = page.read_text(encoding="utf-8")
        after = renewed(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            sys.stdout.write(f"{page.relative_to(ROOT)} is written again\n")


def renewed(text: str) -> str:
    """Returns a page with its generated parts as the code says now."""
    return _PART.sub(lambda part: f"{part[1]}\n{PARTS[part[2]]().strip()}\n\n{part[3]}", text)


def parts_of(page: Path) -> list[str]:
    """Returns the names of the generated parts of a page."""
    return [part[2] for part in _PART.finditer(page.read_text(encoding="utf-8"))]


# Configuration


def _config() -> str:
    sections: dict[str, list[KeyDoc]] = {}
    for doc in config_keys():
        sections.setdefault(_section(doc.key), []).append(doc)
    return "\n\n".join(f"### {name}\n\n{_key_table(docs)}" for name, docs in sections.items())


def _section(key: str) -> str:
    """The heading a key stands under: its section of the file, the two large parts of `source` apart."""
    for name in ("source.security", "source.topics.<topic>"):
        if key.startswith(f"{name}."):
            return f"`{name}`"
    head, dot, _ = key.partition(".")
    return f"`{head}`" if dot else "The pipeline's name"


def _key_table(docs: Iterable[KeyDoc]) -> str:
    rows = ((f"`{doc.key}`", doc.type, doc.default, doc.description) for doc in docs)
    return table(("key", "type", "default", "what it does"), rows)


# Metrics


def metric_families() -> list[tuple[str, str, str, tuple[str, ...], str]]:
    """Returns process, name as Prometheus shows it, type, labels and description of every metric."""
    found = []
    for process, kind in (
        ("ingestor", metrics.IngestMetrics),
        ("embedder", metrics.EmbedMetrics),
        ("API", metrics.ApiMetrics),
        ("store owner", metrics.StoreMetrics),
        ("every", metrics.ProcessMetrics),
        ("whole app", metrics.AppMetrics),
    ):
        registry = CollectorRegistry()
        labels = {vars(part)["_name"]: vars(part)["_labelnames"] for part in vars(kind(registry)).values()}
        for family in registry.collect():
            name = family.name + ("_total" if family.type == "counter" else "")
            found.append((process, name, family.type, labels[family.name], family.documentation))
    return found


def _metrics() -> str:
    rows = (
        (f"`{name}`", kind, process, ", ".join(labels), text) for process, name, kind, labels, text in metric_families()
    )
    return table(("metric", "type", "process", "labels", "what it is"), rows)


# Commands


def verbs() -> Iterator[tuple[str, Any]]:
    """Yields `check`, `dlq list` … and each one's command."""
    root: Any = get_command(app)
    for name, command in root.commands.items():
        children = getattr(command, "commands", None)
        if children:
            yield from ((f"{name} {child}", below) for child, below in children.items())
        else:
            yield name, command


def _commands() -> str:
    return "\n\n".join(_verb(name, command) for name, command in verbs())


def _verb(name: str, command: Any) -> str:
    context = typer.Context(command)
    arguments = [part for part in command.params if part.param_type_name == "argument"]
    usage = " ".join([f"refract {name}", *(_argument(part) for part in arguments), "[OPTIONS]"])
    rows = (record for part in command.params if (record := part.get_help_record(context)) is not None)
    help_text = re.sub(r"(?<!\n)\n(?!\n)", " ", command.help)
    options = table(("argument or option", "what it does"), ((f"`{left}`", right) for left, right in rows))
    return f"### refract {name}\n\n`{usage}`\n\n{help_text}\n\n{options}"


def _argument(part: Any) -> str:
    name = str(part.metavar or part.name)
    return name if part.required else f"[{name}]"


def _exit_codes() -> str:
    return table(("code", "meaning"), ((str(int(code)), meaning) for code, meaning in MEANINGS.items()))


# Models

_STYLES = {
    "free_form": "your own words",
    "question_suffix": "your own words, after the text",
    "chat": "your own words, as a chat's system message",
    "task_label": "one of its labels",
    "fixed_prefix": "no instruction; fixed prefixes",
    "adapter": "one LoRA adapter per task",
    "none": "none",
}


def _catalogue() -> str:
    families: dict[tuple[str, str], list[CatalogueEntry]] = {}
    for entry in catalogue().values():
        families.setdefault((entry.instruction_style or "", entry.family), []).append(entry)
    order = sorted(families, key=lambda family: ([*STYLES, ""].index(family[0]), family[1]))
    rows = (
        (family, _STYLES.get(style, "unknown: say it with overrides"), ", ".join(f"`{e.id}`" for e in families[key]))
        for key in order
        for style, family in [key]
    )
    return table(("family", "takes", "models"), rows)


# Python

REPORTS = (
    "pipeline.searcher.Hit",
    "pipeline.usecases.backfill.BackfillRequest",
    "pipeline.backfill.counts.BackfillReport",
    "pipeline.usecases.estimate.EstimateRequest",
    "pipeline.usecases.estimate.EstimateReport",
    "pipeline.usecases.compared_sources.CompareRequest",
    "pipeline.compare.report.VerifyReport",
    "pipeline.compare.report.TaskReport",
    "pipeline.compare.report.RepairReport",
    "pipeline.compare.report.RepairedTask",
    "pipeline.usecases.purge.PurgeRequest",
    "pipeline.usecases.purge.PurgeReport",
    "pipeline.usecases.purge.PurgedTask",
    "pipeline.usecases.check.CheckReport",
    "pipeline.usecases.evaluate.EvaluateRequest",
    "pipeline.usecases.evaluate.EvaluateReport",
    "pipeline.quality.evaluation.Evaluation",
    "pipeline.usecases.produce.ProduceRequest",
    "pipeline.usecases.produce.ProduceReport",
    "pipeline.usecases.tune_request.TuneRequest",
    "pipeline.usecases.tune_request.TuneReport",
)
"""What the methods of a session take and return, beside arrays."""


def _session() -> str:
    from pipeline.session import Session  # noqa: PLC0415 - as a user gets it

    members = [(name, member) for name, member in vars(Session).items() if not name.startswith("_")]
    return "\n\n".join(_member(name, member) for name, member in members)


def _member(name: str, member: Any) -> str:
    if isinstance(member, property):
        return f"### refract.{name}\n\n{_docstring(inspect.getdoc(member.fget) or '')}"
    function = member.__func__ if isinstance(member, classmethod) else member
    owner = "Session" if isinstance(member, classmethod) else "refract"
    given = [part for part in inspect.signature(function).parameters.values() if part.name not in {"self", "cls"}]
    signature = str(inspect.Signature([part.replace(annotation=inspect.Parameter.empty) for part in given]))
    return f"### {owner}.{name}\n\n`{owner}.{name}{signature}`\n\n{_docstring(inspect.getdoc(function) or '')}"


def _docstring(text: str) -> str:
    """A Google docstring as Markdown: its sections as lists."""
    prose, *sections = re.split(r"^(Args|Returns|Raises):\n", text, flags=re.MULTILINE)
    parts = [_joined(prose)]
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        lines = textwrap.dedent(body).strip()
        if title == "Returns":
            parts.append(f"**Returns** {_joined(lines)}")
            continue
        items = (_joined(item) for item in re.split(r"\n(?=\S)", lines))
        parts.append("\n".join([f"**{title}**", "", *(re.sub(r"^([*\w, ]+?):", r"- `\1`:", i) for i in items)]))
    return "\n\n".join(parts)


def _joined(text: str) -> str:
    """Paragraphs on a line each."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n"))


def _reports() -> str:
    return "\n\n".join(_report(pkgutil.resolve_name(":".join(name.rsplit(".", 1)))) for name in REPORTS)


def _report(kind: Any) -> str:
    """A dataclass with its fields; the string below a field, or its description, says what it is."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    rows = []
    for node, below in zip(body.body, [*body.body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign):
            continue
        found = re.search(r"description=(['\"])(.*?)\1\)", ast.unparse(node.annotation))
        text = found[2] if found else ""
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            text = _joined(str(below.value.value))
        kind_of = re.sub(r"Annotated\[(.*?), Field.*", r"\1", ast.unparse(node.annotation))
        rows.append((f"`{ast.unparse(node.target)}`", f"`{kind_of}`", text))
    fields = table(("field", "type", "what it is"), rows)
    return f"### {kind.__name__}\n\n{_docstring(inspect.getdoc(kind) or '')}\n\n{fields}"


# Versions


def _versions() -> str:
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    kafka = re.search(r"<kafka\.version>(.*?)<", (ROOT / "infra" / "pom.xml").read_text())
    wanted = (
        "kafka-python",
        "ray",
        "qdrant-edge-py",
        "qdrant-client",
        "torch",
        "transformers",
        "tokenizers",
        "pyarrow",
    )
    rows = [("Apache Kafka broker, KRaft mode", kafka[1] if kafka else "?"), *((name, pins[name]) for name in wanted)]
    return table(("part", "version"), rows)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Returns a Markdown table."""
    lines = [list(head)]
    lines.append(["---"] * len(lines[0]))
    lines += [[_cell(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cell(text: str) -> str:
    r"""A `|` splits cells even inside a code span; `<topic>` outside one would be taken for HTML."""
    text = text.replace("|", r"\|").replace("\n", r"\n")
    parts = text.split("`")
    parts[::2] = [part.replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)


PARTS: dict[str, Callable[[], str]] = {
    "configuration": _config,
    "metrics": _metrics,
    "commands": _commands,
    "exit_codes": _exit_codes,
    "catalogue": _catalogue,
    "session": _session,
    "reports": _reports,
    "versions": _versions,
}

if __name__ == "__main__":
    main()
