"""An evaluation as one HTML file, for people: it loads nothing, runs nothing, and escapes every text."""

import math
from collections.abc import Mapping, Sequence

from pipeline.quality.estimates import Estimate
from pipeline.quality.evaluation import Evaluation, Misjudged, WorstText
from pipeline.quality.markup import Markup, foreign, fragment, tag
from pipeline.quality.page_style import STYLE
from pipeline.quality.page_tables import confusions, matrix, pairs, retrieval, wordings
from pipeline.quality.verdict import RANDOM_FLIPS, judge, notes, two_places

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Whatever a text contains, the browser fetches and runs nothing."""

_TEXT_CHARS = 600
_NEIGHBOUR_CHARS = 160

_WORDS = {
    "Accuracy": "Share of texts whose nearest neighbours have, by majority, the text's own label. Each text is judged "
    "by the other texts alone.",
    "κ (kappa)": "Accuracy with luck taken out: 0 is what guessing reaches, 1 is perfect. Makes labels with few and "
    "with many values comparable.",
    "V-measure": "How well groups, found without the labels, agree with the labels: 0 not at all, 1 exactly.",
    "Separation": "κ of an instruction's own label less κ of another label, on texts chosen so that neither label "
    "gives the other away; the mean over all pairs. 0 for a model that ignores instructions.",
    "Flip rate": "Take a text, one that shares only its first label, and one that shares only its second. How often "
    "is the former nearer under the first instruction, and the latter under the second? 0 for a model that ignores "
    "instructions, 0.25 for random vectors, 1 for perfect ones.",
    "Range in brackets": "Where the figure would lie, in 95 of 100 cases, for other texts of the same kind.",
    "Words alone": "A classifier (TF-IDF and logistic regression) trained on the labels, which sees words but no "
    "vectors: what keywords achieve without any model.",
}


def render_page(evaluation: Evaluation, *, title: str, texts: Sequence[str], instructions: Mapping[str, str]) -> str:
    """Returns the page.

    Args:
        evaluation: What was found.
        title: What was evaluated, such as the configuration's name.
        texts: The texts judged, of which the worst and their neighbours are shown; empty shows keys instead.
        instructions: Of each task.
    """
    verdict = judge(evaluation)
    body = tag(
        "main",
        tag(
            "header",
            tag("p", "Do these instructions do their job? ", tag("bdi", title), class_="asked"),
            tag("h1", verdict.headline),
            tag("p", verdict.reason),
            class_=str(verdict.answer),
        ),
        _tiles(evaluation),
        matrix(evaluation, instructions),
        pairs(evaluation),
        wordings(evaluation),
        retrieval(evaluation),
        confusions(evaluation),
        _worst(evaluation, texts),
        _notes(evaluation),
        _glossary(),
    )
    head = tag(
        "head",
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        tag("title", f"Instructions of {title}"),
        Markup(f"<style>{STYLE}</style>"),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', body), lang='en')}\n"


def _tiles(evaluation: Evaluation) -> Markup:
    found = [
        (
            "Separation",
            evaluation.separation,
            (-1.0, 1.0),
            {0.0: "changes nothing"},
            "How much better a label is told under its own instruction than other labels are.",
        ),
        (
            "Flip rate",
            evaluation.flip_rate,
            (0.0, 1.0),
            {RANDOM_FLIPS: "random"},
            "How often two instructions put the same text next to different neighbours, each the right one.",
        ),
        (
            "Gain over no instruction",
            evaluation.gain,
            (-1.0, 1.0),
            {0.0: "no gain"},
            "How much more often neighbours say the right label than without any instruction.",
        ),
    ]
    return tag(
        "div",
        [
            tag(
                "div",
                name,
                tag("b", two_places(value.value), tag("small", f"{two_places(value.low)} to {two_places(value.high)}")),
                _scale(value, ends, marks),
                tag("p", meaning),
                class_="tile",
            )
            for name, value, ends, marks, meaning in found
            if value is not None
        ],
        class_="tiles",
    )


def _scale(value: Estimate, ends: tuple[float, float], marks: Mapping[float, str]) -> Markup:
    """A figure and its interval on a line from end to end."""

    def place(number: float) -> str:
        return f"{100 * (min(max(number, ends[0]), ends[1]) - ends[0]) / (ends[1] - ends[0]):.1f}%"

    low, high = (value.value, value.value) if math.isnan(value.low) else (value.low, value.high)
    edge = {ends[0]: "first", ends[1]: "last"}
    return tag(
        "div",
        tag("i", class_="rail"),
        [tag("i", class_="mark", style=f"left:{place(number)}") for number in marks],
        tag("i", class_="range", style=f"left:{place(low)};right:calc(100% - {place(high)})"),
        tag("i", class_="value", style=f"left:{place(value.value)}"),
        [
            tag("span", f"{number:g} {meaning}", class_=edge.get(number), style=f"left:{place(number)}")
            for number, meaning in {**dict.fromkeys(ends, ""), **marks}.items()
        ],
        class_="scale",
    )


def _worst(evaluation: Evaluation, texts: Sequence[str]) -> Markup:
    if not evaluation.worst:
        return Markup()
    return tag(
        "section",
        tag("h2", f"The {len(evaluation.worst)} texts that are judged worst"),
        tag(
            "p",
            "Their nearest neighbours have other labels. Look whether the label is wrong, the text is ambiguous, "
            "or the instruction does not reach what the label is about. Click on one to see its neighbours.",
            class_="hint",
        ),
        [_worst_text(found, texts, is_open=place == 0) for place, found in enumerate(evaluation.worst)],
    )


def _worst_text(found: WorstText, texts: Sequence[str], *, is_open: bool) -> Markup:
    text = texts[found.row] if texts else ""
    summary = tag(
        "summary",
        [
            fragment(tag("span", f"{task}: {one.label} → {one.predicted}", class_="chip wrong"))
            for task, one in found.tasks.items()
            if one.label != one.predicted
        ],
        foreign(" ".join(text.split()) or found.key, 90),
    )
    return tag(
        "details",
        summary,
        tag("blockquote", foreign(text or found.key, _TEXT_CHARS), dir="auto"),
        tag("div", [_neighbours(task, one, texts) for task, one in found.tasks.items()], class_="near"),
        open="" if is_open else None,
    )


def _neighbours(task: str, found: Misjudged, texts: Sequence[str]) -> Markup:
    return tag(
        "div",
        tag(
            "h3",
            f"Under {task}: {found.label}",
            " ✓" if found.label == found.predicted else f", taken for {found.predicted}",
        ),
        tag(
            "ol",
            [
                tag(
                    "li",
                    tag("span", one.label, class_=f"chip {'right' if one.label == found.label else 'wrong'}"),
                    tag("span", f"{one.similarity:.2f} ", class_="soft"),
                    foreign(" ".join(texts[one.row].split()) if texts else one.key, _NEIGHBOUR_CHARS),
                )
                for one in found.neighbours
            ],
        ),
    )


def _notes(evaluation: Evaluation) -> Markup:
    lines = notes(evaluation)
    rows = evaluation.rows
    facts = (
        f"{rows.num_texts:,} distinct texts of {rows.num_read:,} rows, {evaluation.k} neighbours, "
        f"{evaluation.replicates:,} resamples, seed {rows.seed}."
    )
    return tag(
        "section",
        tag("h2", "What to know of these figures"),
        tag("p", facts),
        tag("ul", [tag("li", line) for line in lines]) if lines else Markup(),
    )


def _glossary() -> Markup:
    return tag(
        "section",
        tag("h2", "Words"),
        tag("dl", [fragment(tag("dt", word), tag("dd", meaning)) for word, meaning in _WORDS.items()]),
    )
