"""Says whether the instructions of a configuration do their job, on labelled records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.backfill.selection import chosen_tasks, chosen_topic
from pipeline.binding import Task
from pipeline.config.pipeline import Config
from pipeline.config.yaml_loader import load_yaml
from pipeline.context import Context
from pipeline.errors import ConfigError, nearest
from pipeline.interfaces import Progress
from pipeline.quality.evaluation import Evaluation
from pipeline.quality.page import render_page
from pipeline.quality.paraphrases import frame, read_wordings
from pipeline.quality.queries import Query, read_queries
from pipeline.quality.verdict import judge, notes
from pipeline.records.batches import Float32
from pipeline.usecases.embed import embed
from pipeline.usecases.labelled import Draw, LabelledInput, Material, read_labelled
from pipeline.usecases.queried import QueryPlan, measure_queries
from pipeline.usecases.stored import read_stored
from pipeline.usecases.variants import Variant, Variants

if TYPE_CHECKING:
    from pipeline.quality.evaluator import Evaluator

_OPTIONAL = frozenset({"scipy", "sklearn"})


@dataclass(frozen=True, slots=True)
class EvaluateRequest:
    """What is evaluated, and how."""

    inputs: Sequence[str] = ()
    """Files, folders, globs or Kafka ranges, as of a backfill."""
    topic: str | None = None
    """By whose rules the input is read; None for the only one."""
    tasks: Sequence[str] | None = None
    """None for all of the topic."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Task -> label column; a symmetric task without one has the column of its own name."""
    stored: bool = False
    """Takes the vectors that stand in the collections, and labels from their payloads."""
    queries: Path | None = None
    """JSON Lines of queries for retrieval tasks."""
    paraphrases: Path | None = None
    """YAML or JSON: task -> wordings of its instruction."""
    reword: bool = False
    """Takes built-in wordings where no file gives any."""
    controls: bool = True
    """Whether the texts are also embedded without an instruction, with nonsense and with a generic one."""
    max_texts: int = 10_000
    seed: int = 0
    k: int = 5
    """Neighbours that vote, and ranks that count for queries."""


@dataclass(frozen=True, slots=True)
class EvaluateReport:
    """What was found, and the texts that it was found on."""

    evaluation: Evaluation
    texts: Sequence[str]
    """Those judged; empty of stored points."""
    instructions: Mapping[str, str]
    """Of each task that has one."""

    def tree(self) -> dict[str, Any]:
        """Returns the evaluation and what it means as plain data, without texts."""
        verdict = judge(self.evaluation)
        return {
            "answer": str(verdict.answer),
            "headline": verdict.headline,
            "reason": verdict.reason,
            "notes": notes(self.evaluation),
            **self.evaluation.tree(),
        }

    def page(self, title: str) -> str:
        """Returns the evaluation as one HTML file, which shows texts."""
        return render_page(self.evaluation, title=title, texts=self.texts, instructions=self.instructions)


def evaluate(context: Context, request: EvaluateRequest, progress: Progress) -> EvaluateReport:
    """Embeds labelled records under every instruction, its controls and wordings, and measures.

    Raises:
        ConfigError: The request does not fit the configuration or the input; the message says what would.
        RefractError: Nothing can be evaluated, a file cannot be read, or a model fails.
        EnvironmentFault, TransientError: Like the store and the model's files.
    """
    _check(request)
    evaluation = _Evaluation(context, request, progress)
    return evaluation.of_stored() if request.stored else evaluation.of_records()


class _Evaluation:
    """One evaluation on its way."""

    def __init__(self, context: Context, request: EvaluateRequest, progress: Progress) -> None:
        config = context.config
        self._context = context
        self._request = request
        self._progress = progress
        self._topic = chosen_topic(config, request.topic, request.inputs)
        names = chosen_tasks(config, self._topic, request.tasks)
        _check_labels(config, self._topic, names, request.labels)
        self._queries = _queries(config, names, request.queries)
        asked = {query.task for query in self._queries}
        self._columns = _columns(config, [name for name in names if name not in asked], asked, request.labels)
        self._names = [name for name in names if name in self._columns or name in asked]

    def of_stored(self) -> EvaluateReport:
        tasks = self._tasks(self._columns)
        store = self._context.open_store()
        try:
            material, vectors = read_stored(store, tasks, self._label_names, self._draw, self._progress)
        finally:
            store.close()
        return self._finish(self._evaluator(material, vectors), material)

    def of_records(self) -> EvaluateReport:
        wordings = _wordings(self._context.config, list(self._columns), self._request)
        source = LabelledInput(self._topic, self._request.inputs, self._label_names)
        material = read_labelled(self._context.config, source, self._draw, self._progress)
        material.make_labels()  # what is wrong with them is told before anything is embedded
        variants = Variants(self._context)
        controls = variants.add_controls(self._tasks(self._columns)) if self._request.controls else []
        reworded = [one for task, texts in wordings.items() for one in variants.add_wordings(task, texts)]
        plan = QueryPlan.of(self._queries, variants)
        self._context = variants.context()
        vectors = {name: self._embedded(name, name, material) for name in self._columns}
        material, vectors = _finite(material, vectors)
        evaluator = self._evaluator(material, vectors)
        for control in controls:
            evaluator.add_control(
                control.title, control.kind, self._variant(control, material, control.title), control.tasks
            )
        for number, wording in enumerate(reworded, start=1):
            task = wording.tasks[0]
            vectors_of = self._variant(wording, material, f"{task}, wording {number} of {len(reworded)}")
            evaluator.add_wording(task, wording.title, vectors_of)
        self._progress("weighing words", 0, 0)
        evaluator.add_texts(material.texts)
        for report in measure_queries(self._context, plan, material, self._request.k, self._request.seed):
            evaluator.add_retrieval(report)
        return self._finish(evaluator, material)

    @property
    def _label_names(self) -> list[str]:
        """Label columns, each once; two tasks may share one."""
        return list(dict.fromkeys(self._columns.values()))

    @property
    def _draw(self) -> Draw:
        wanted = [key for query in self._queries for key in query.relevant]
        return Draw(self._request.max_texts, self._request.seed, wanted)

    def _tasks(self, names: Mapping[str, str]) -> list[Task]:
        return [self._context.task(name) for name in names]

    def _evaluator(self, material: Material, vectors: Mapping[str, Float32]) -> "Evaluator":
        from pipeline.quality.evaluator import Evaluator, Settings

        settings = Settings(k=self._request.k, seed=self._request.seed)
        evaluator = Evaluator(material.make_labels(), material.rows.num_texts, settings)
        for number, (task, column) in enumerate(self._columns.items()):
            self._progress("measuring", number, len(self._columns))
            evaluator.add_task(task, column, vectors[task])
        return evaluator

    def _finish(self, evaluator: "Evaluator", material: Material) -> EvaluateReport:
        self._progress("comparing tasks", 0, 0)
        configured = {name: self._context.config.tasks[name].instruction for name in self._names}
        instructions = {name: text for name, text in configured.items() if text is not None}
        evaluation = evaluator.finish(
            material.rows, material.keys, instructions=instructions, contradicted=material.contradicted
        )
        return EvaluateReport(evaluation, material.texts, instructions)

    def _variant(self, variant: Variant, material: Material, title: str) -> Float32:
        """A text without a finite vector under a variant is near to none: the tasks' own vectors all are finite."""
        return np.nan_to_num(self._embedded(variant.name, title, material))

    def _embedded(self, name: str, title: str, material: Material) -> Float32:
        texts, size = material.texts, self._context.config.limits.max_batch_records
        parts = []
        for begin in range(0, len(texts), size):
            self._progress(f"embedding: {title}", begin, len(texts))
            parts.append(embed(self._context, name, texts[begin : begin + size]))
        return np.concatenate(parts)


def _check(request: EvaluateRequest) -> None:
    if request.stored:
        for option, given in (
            ("inputs", request.inputs),
            ("--queries", request.queries),
            ("--paraphrases", request.paraphrases),
            ("--reword", request.reword),
        ):
            if given:
                raise ConfigError(f"--stored embeds nothing, so it goes without {option}")
    elif not request.inputs:
        raise ConfigError("name at least one INPUT, or --stored")
    try:
        from pipeline.quality import evaluator  # noqa: F401 - whether it can be imported
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _OPTIONAL:
            raise
        raise ConfigError("an evaluation needs scikit-learn: pip install 'refract[quality]'") from None


def _check_labels(config: Config, topic: str, tasks: Sequence[str], labels: Mapping[str, str]) -> None:
    """Raises ConfigError for a label of a task that is not evaluated."""
    for name in labels:
        if name in tasks:
            continue
        others = [other for other, settings in config.source.topics.items() if name in settings.tasks]
        where = f"; it is a task of {', '.join(others)}" if others and topic not in others else ""
        raise ConfigError(
            f"--label: {name!r} is not evaluated with topic {topic!r}{where}.{nearest(name, tasks)} "
            f"Tasks: {', '.join(tasks)}"
        )


def _queries(config: Config, names: Sequence[str], path: Path | None) -> list[Query]:
    if path is None:
        return []
    tasks = [name for name in names if config.tasks[name].mode == "retrieval"]
    if not tasks:
        raise ConfigError("--queries: no task with mode: retrieval is evaluated, and queries are for these")
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"--queries {path}: cannot be read ({error.strerror})") from None
    return read_queries(f"--queries {path}", lines, tasks)


def _columns(config: Config, names: Sequence[str], asked: set[str], labels: Mapping[str, str]) -> dict[str, str]:
    """Returns the label column of each task; retrieval tasks have one only if it is named."""
    found = {name: labels.get(name, name) for name in names if name in labels or config.tasks[name].mode == "symmetric"}
    found |= {name: column for name, column in labels.items() if name in asked}
    if not found and not asked:
        raise ConfigError("every task has mode: retrieval: give --queries FILE, or a label with --label TASK=COLUMN")
    return found


def _wordings(config: Config, tasks: Sequence[str], request: EvaluateRequest) -> dict[str, list[str]]:
    """Returns other wordings of each task's instruction."""
    if request.paraphrases is not None:
        path = request.paraphrases
        try:
            text = path.read_text(encoding="utf-8-sig")
        except OSError as error:
            raise ConfigError(f"--paraphrases {path}: cannot be read ({error.strerror})") from None
        except UnicodeDecodeError:
            raise ConfigError(f"--paraphrases {path}: is not UTF-8 text") from None
        try:
            tree = load_yaml(text)
        except ConfigError as error:
            raise ConfigError(f"--paraphrases {path}: {error}") from None
        return read_wordings(path, tree, tasks)
    if not request.reword:
        return {}
    instructions = {name: config.tasks[name].instruction for name in tasks}
    return {name: frame(text) for name, text in instructions.items() if text is not None}


def _finite(material: Material, vectors: dict[str, Float32]) -> tuple[Material, dict[str, Float32]]:
    """Leaves out texts that a model has no finite vector for: live, they would be dead letters."""
    if not vectors:
        return material, vectors
    kept = np.flatnonzero(np.all([np.isfinite(rows).all(axis=1) for rows in vectors.values()], axis=0))
    if len(kept) == material.rows.num_texts:
        return material, vectors
    return material.take(kept.tolist()), {name: rows[kept] for name, rows in vectors.items()}
