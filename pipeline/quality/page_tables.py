"""The tables of the page: the matrix as a heat map, pairs, wordings, retrieval, confusion."""

from collections.abc import Mapping

import numpy as np

from pipeline.quality.estimates import Estimate
from pipeline.quality.evaluation import Confusion, Evaluation, MatrixRow, PromptKind, Separation, TaskEvaluation
from pipeline.quality.markup import Markup, foreign, fragment, tag
from pipeline.quality.scores import Score
from pipeline.quality.verdict import interval, two_places
from pipeline.records.batches import Int64

MAX_CLASSES = 16
"""Classes of a confusion table; the rarer ones of more are counted together."""

_STRONG = 0.65
"""Share of the full colour from which text on it changes its own."""

_LABEL_CHARS = 28


def matrix(evaluation: Evaluation, instructions: Mapping[str, str]) -> Markup:
    """Returns the heat map of instructions and labels."""
    tasks = [row for row in evaluation.matrix if row.kind is PromptKind.TASK]
    controls = [row for row in evaluation.matrix if row.kind is not PromptKind.TASK]
    names = [label.name for label in evaluation.labels]
    if not names:
        return Markup()
    body = [_matrix_row(row, instructions.get(row.name, ""), _says(row.name, evaluation)) for row in tasks]
    words = _words_row(evaluation, names)
    if controls or words:
        body.append(tag("tr", tag("td", "for comparison", colspan=str(len(names) + 1)), class_="gap"))
    body += [_matrix_row(row, "", Markup()) for row in controls]
    return tag(
        "section",
        tag("h2", "Which instruction brings out which label?"),
        tag(
            "p",
            f"The number says how often a text's {evaluation.k} nearest neighbours have the text's own label. ",
            tag("strong", "In each row, and in each column, the framed cell should have the strongest colour: "),
            "an instruction should bring out its own label, and no other instruction should do that better.",
        ),
        tag(
            "table",
            tag(
                "thead",
                tag("tr", tag("th", "instruction"), [_label_head(name, evaluation) for name in names]),
            ),
            tag("tbody", body, words),
            class_="heat",
        ),
        tag(
            "div",
            "no better than guessing",
            tag("span", class_="bar"),
            "perfect",
            tag("span", class_="box"),
            "an instruction and its own label; κ is the figure above it with luck taken out",
            class_="legend",
        ),
    )


def pairs(evaluation: Evaluation) -> Markup:
    """Returns separation and flip rate of every pair of tasks that could be measured."""
    measured = [pair for pair in evaluation.pairs if pair.separations]
    if not measured:
        return Markup()
    flips = [
        tag(
            "tr",
            tag("th", f"{pair.first} and {pair.second}"),
            tag("td", interval(pair.flip.rate) if pair.flip else "-", class_="number"),
            tag("td", interval(pair.flip.first) if pair.flip else "-", class_="number"),
            tag("td", interval(pair.flip.second) if pair.flip else "-", class_="number"),
            tag("td", f"{pair.num_texts:,}", class_="number"),
            tag("td", f"{pair.cramers_v:.2f}", class_="number"),
        )
        for pair in measured
    ]
    return tag(
        "section",
        tag("h2", "Pair by pair"),
        tag("p", "On texts chosen so that neither label gives the other away.", class_="hint"),
        tag(
            "table",
            _head(
                "under the instruction of", "#κ of its own label", "other label", "#κ of the other label", "#separation"
            ),
            tag("tbody", [_separation(found) for pair in measured for found in pair.separations]),
            class_="plain",
        ),
        tag("p"),
        tag(
            "table",
            _head(
                "two instructions", "#flip rate", "#first alone", "#second alone", "#texts", "#Cramér's V of the labels"
            ),
            tag("tbody", flips),
            class_="plain",
        ),
    )


def wordings(evaluation: Evaluation) -> Markup:
    """Returns what the choice of words does to each task's accuracy."""
    reworded = [(task, task.paraphrases) for task in evaluation.tasks if task.paraphrases]
    if not reworded:
        return Markup()
    return tag(
        "section",
        tag("h2", "The same question in other words"),
        tag("p", "A figure that depends on the wording says little about the next wording.", class_="hint"),
        [
            fragment(
                tag("h3", f"{task.name}: from {found.least:.2f} to {found.most:.2f}, mean {found.mean:.2f}"),
                tag(
                    "table",
                    tag(
                        "tbody",
                        [
                            tag(
                                "tr",
                                tag("td", foreign(one.text, 200)),
                                tag("td", interval(one.accuracy), class_="number"),
                            )
                            for one in found.wordings
                        ],
                    ),
                    class_="plain",
                ),
            )
            for task, found in reworded
        ],
    )


def retrieval(evaluation: Evaluation) -> Markup:
    """Returns the figures of retrieval tasks."""
    if not evaluation.retrieval:
        return Markup()
    return tag(
        "section",
        tag("h2", "Queries and the records they should find"),
        tag(
            "table",
            _head("task", "#queries", "#records", "#k", "#recall@k", "#nDCG@k", "#p-MRR"),
            tag(
                "tbody",
                [
                    tag(
                        "tr",
                        tag("th", one.task),
                        [
                            tag("td", figure, class_="number")
                            for figure in (
                                f"{one.found.num_queries:,}",
                                f"{one.found.num_records:,}",
                                str(one.found.k),
                                interval(one.found.recall),
                                interval(one.found.ndcg),
                                interval(one.change.p_mrr) if one.change else "-",
                            )
                        ],
                    )
                    for one in evaluation.retrieval
                ],
            ),
            class_="plain",
        ),
    )


def confusions(evaluation: Evaluation) -> Markup:
    """Returns what is taken for what, for each task."""
    if not evaluation.tasks:
        return Markup()
    return tag(
        "section",
        tag("h2", "What is taken for what?"),
        tag(
            "p",
            "Each row is a label's true value, each column what the neighbours say. Right answers lie on the diagonal; "
            "the other colour marks mistakes.",
            class_="hint",
        ),
        tag("div", [_confusion(task) for task in evaluation.tasks], class_="cards"),
    )


def _matrix_row(row: MatrixRow, instruction: str, says: Markup) -> Markup:
    head = tag("th", row.name, tag("small", foreign(instruction, 90)) if instruction else Markup(), scope="row")
    return tag("tr", head, [_score_cell(score, is_own=score.label == row.own_label) for score in row.scores], says)


def _says(task: str, evaluation: Evaluation) -> Markup:
    """What the figures say of one instruction, in words."""
    report = next(one for one in evaluation.tasks if one.name == task)
    gain = next((one.gain for one in report.controls if one.kind is PromptKind.NO_INSTRUCTION), None)
    against = "" if gain is None else tag("small", f"{gain.value:+.2f} against no instruction")
    return tag("td", _favours(task, evaluation, gain), against, class_="says")


def _favours(task: str, evaluation: Evaluation, gain: Estimate | None) -> Markup:
    """Which label an instruction brings out, as far as that is sure."""
    found = [one for pair in evaluation.pairs for one in pair.separations if one.own == task]
    labels = {one.name: one.own.label for one in evaluation.tasks}
    if not found:
        return Markup()
    if losing := [labels[one.other] for one in found if one.difference.high < 0]:
        return tag("span", f"✗ brings out {', '.join(losing)} more", class_="wrong")
    if not all(one.difference.low > 0 for one in found):
        return tag("span", "brings out its own label no more than another")
    if gain is not None and not gain.low > 0:
        return tag("span", "its own label comes out, as without an instruction")
    return tag("span", "✓ brings out its own label", class_="right")


def _score_cell(score: Score, *, is_own: bool) -> Markup:
    share = min(max(score.kappa.value, 0.0), 1.0)
    clusters = "" if score.v_measure is None else f"\nV-measure {interval(score.v_measure)}"
    return tag(
        "td",
        f"{score.accuracy.value:.2f}",
        tag("small", f"κ {two_places(score.kappa.value)}"),
        class_=f"shade{' own' if is_own else ''}{' strong' if share > _STRONG else ''}",
        style=f"--v:{share:.3f}",
        title=f"accuracy {interval(score.accuracy)}, chance {score.chance:.2f}\nκ {interval(score.kappa)}\n"
        f"macro F1 {interval(score.macro_f1)}{clusters}\n{score.num_texts:,} texts",
    )


def _words_row(evaluation: Evaluation, names: list[str]) -> Markup:
    found = {task.own.label: task.words for task in evaluation.tasks if task.words is not None}
    if not found:
        return Markup()
    head = tag("th", "words alone", tag("small", "TF-IDF and logistic regression, trained on the label"), scope="row")
    return tag(
        "tr", head, [_score_cell(found[name], is_own=False) if name in found else tag("td", "-") for name in names]
    )


def _label_head(name: str, evaluation: Evaluation) -> Markup:
    label = next(one for one in evaluation.labels if one.name == name)
    return tag("th", f"label {name}", tag("small", f"{len(label.classes):,} values"), scope="col")


def _separation(found: Separation) -> Markup:
    return tag(
        "tr",
        tag("th", found.own, scope="row"),
        tag("td", interval(found.own_kappa), class_="number"),
        tag("td", found.other),
        tag("td", interval(found.other_kappa), class_="number"),
        tag("td", tag("strong", interval(found.difference)), class_="number"),
    )


def _confusion(task: TaskEvaluation) -> Markup:
    names, counts = _folded(task.confusion)
    rows = []
    for true, (name, row) in enumerate(zip(names, counts.tolist(), strict=True)):
        cells = [
            _confusion_cell(count, count / max(sum(row), 1), is_right=true == said) for said, count in enumerate(row)
        ]
        rows.append(tag("tr", tag("th", foreign(name, _LABEL_CHARS), scope="row"), cells))
    return tag(
        "div",
        tag("h3", f"{task.name}: {task.own.accuracy.value:.0%} right"),
        tag(
            "table",
            tag("thead", tag("tr", tag("td"), [tag("th", foreign(name, _LABEL_CHARS), scope="col") for name in names])),
            tag("tbody", rows),
            class_="confusion",
        ),
    )


def _confusion_cell(count: int, share: float, *, is_right: bool) -> Markup:
    kind = "shade" if is_right else "error"
    return tag(
        "td",
        f"{count:,}" if count else "",
        class_=f"{kind}{' strong' if share > _STRONG else ''}",
        style=f"--v:{share:.3f}",
    )


def _folded(confusion: Confusion) -> tuple[list[str], Int64]:
    """The most frequent classes, which stand first, and the others as one."""
    counts = np.array(confusion.counts, np.int64)
    if len(confusion.classes) <= MAX_CLASSES:
        return list(confusion.classes), counts
    kept = MAX_CLASSES - 1
    begins = np.arange(MAX_CLASSES)  # the last part reaches to the end
    counts = np.add.reduceat(np.add.reduceat(counts, begins, axis=0), begins, axis=1)
    return [*confusion.classes[:kept], f"{len(confusion.classes) - kept:,} others"], counts


def _head(*names: str) -> Markup:
    """A table's head; columns of numbers begin with #."""
    return tag(
        "thead",
        tag("tr", [tag("th", name.lstrip("#"), class_="number" if name.startswith("#") else None) for name in names]),
    )
