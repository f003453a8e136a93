"""The page: one file that loads and runs nothing, whatever the texts contain."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.quality.estimates import Resampler
from pipeline.quality.evaluation import Evaluation, PromptKind, RetrievalReport
from pipeline.quality.evaluator import Evaluator
from pipeline.quality.markup import Markup, escape, foreign, tag
from pipeline.quality.page import render_page
from pipeline.quality.page_tables import MAX_CLASSES
from pipeline.quality.retrieval import measure_retrieval
from tests.unit.quality import scenes
from tests.unit.quality.made import label, noise
from tests.unit.quality.scenes import INSTRUCTIONS, KEYS, LABELS, NUM_TEXTS, ROWS, SETTINGS, TEXTS, URGENCY, evaluator

EVIL = "</script><img src=http://x.test/a onerror=alert(1)>\"'&<b>\x00\x1b[31m\u202e\ud800"
VOID = {"meta"}


class Page(HTMLParser):
    """The elements of a page, which must be properly nested."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)


def render(evaluation: Evaluation, texts: list[str] | None = None) -> str:
    return render_page(
        evaluation, title="tickets.yaml", texts=TEXTS if texts is None else texts, instructions=INSTRUCTIONS
    )


@pytest.fixture
def following() -> Evaluation:
    return scenes.following()


@pytest.fixture(scope="module")
def misjudged() -> Evaluation:
    """One task of random vectors, so that every text is among the worst."""
    found = Evaluator([label("urgency", URGENCY)], NUM_TEXTS, SETTINGS)
    found.add_task("how_urgent", "urgency", noise(NUM_TEXTS))
    return found.finish(ROWS, KEYS)


def test_the_answer_comes_first(following: Evaluation) -> None:
    text = Page(render(following)).text
    assert text.index("The instructions do their job.") < text.index("Separation") < text.index("Which instruction")


def test_the_matrix_shows_every_cell_and_frames_the_own_ones(following: Evaluation) -> None:
    page = Page(render(following))
    cells = [attributes for name, attributes in page.tags if name == "td" and "shade" in str(attributes.get("class"))]
    shown = [cell for cell in cells if cell.get("title")]
    assert len(shown) == 3 * 2 + 2  # two tasks, a control, and words alone
    assert ["own" in str(cell["class"]).split() for cell in shown] == [True, False, False, True, *[False] * 4]
    assert "✓ brings out its own label" in page.text
    assert "How urgent is this ticket" in page.text


def test_an_instruction_that_favours_another_label_is_marked() -> None:
    found = evaluator({"how_urgent": scenes.FOLLOWING["which_issue"], "which_issue": scenes.FOLLOWING["which_issue"]})
    assert "✗ brings out issue more" in Page(render(found.finish(ROWS, KEYS))).text


def test_an_own_label_that_comes_out_anyway_is_no_merit_of_the_instruction() -> None:
    found = evaluator()
    found.add_control("no instruction", PromptKind.NO_INSTRUCTION, scenes.FOLLOWING["how_urgent"], ["how_urgent"])
    text = Page(render(found.finish(ROWS, KEYS))).text
    assert "its own label comes out, as without an instruction" in text
    assert text.count("✓ brings out its own label") == 1


def test_the_worst_texts_stand_with_their_neighbours(misjudged: Evaluation) -> None:
    page = Page(render(misjudged))
    assert [name for name, _ in page.tags].count("details") == len(misjudged.worst) == 20
    for worst in misjudged.worst:
        assert TEXTS[worst.row] in page.text
        for near in worst.tasks["how_urgent"].neighbours:
            assert TEXTS[near.row] in page.text


def test_without_texts_keys_are_shown(misjudged: Evaluation) -> None:
    text = Page(render(misjudged, texts=[])).text
    assert misjudged.worst[0].key in text
    assert TEXTS[misjudged.worst[0].row] not in text


def test_the_page_loads_and_runs_nothing(following: Evaluation) -> None:
    html = render(following)
    page = Page(html)
    names = {name for name, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "a", "form", "base"}
    assert not re.search(r"url\(|@import|https?:|//", html)
    policies = [attributes["content"] for name, attributes in page.tags if "http-equiv" in attributes]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]
    assert "prefers-color-scheme: dark" in html


def test_whatever_texts_labels_and_names_contain_the_elements_stay_the_same(misjudged: Evaluation) -> None:
    named = [f"{EVIL}{code}" for code in URGENCY]
    codes = label("x", URGENCY)
    evil = Evaluator(
        [replace(codes, name=EVIL, classes=tuple(f"{EVIL}{one}" for one in codes.classes))], NUM_TEXTS, SETTINGS
    )
    evil.add_task(EVIL, EVIL, noise(NUM_TEXTS))
    html = render_page(evil.finish(ROWS, [EVIL] * NUM_TEXTS), title=EVIL, texts=named, instructions={EVIL: EVIL})
    html.encode()
    plain = {name for name, _ in Page(render(misjudged)).tags}
    page = Page(html)
    assert {name for name, _ in page.tags} == plain
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert "\x00" not in html


def test_many_classes_are_folded_into_one_table() -> None:
    codes = np.arange(NUM_TEXTS) % 40
    found = Evaluator([label("issue", codes)], NUM_TEXTS, SETTINGS)
    found.add_task("which_issue", "issue", noise(NUM_TEXTS))
    html = render(found.finish(ROWS, KEYS))
    assert f"{40 - MAX_CLASSES + 1} others" in html
    table = html[html.index('class="confusion"') :].split("</table>")[0]
    counts = [int(count) for count in re.findall(r"<td[^>]*>(\d+)</td>", table)]
    assert sum(counts) == NUM_TEXTS


def test_wordings_and_retrieval_have_tables_of_their_own(following: Evaluation) -> None:
    figures = measure_retrieval(
        noise(5, seed=1), noise(50, seed=2), [np.array([3])] * 5, 10, Resampler(5, replicates=10, seed=0)
    )
    text = Page(render(replace(following, retrieval=(RetrievalReport("answers", figures, None, 0),)))).text
    assert "Say how urgent it is" in text
    assert "nDCG@k" in text


def test_the_scale_of_a_single_label_is_its_gain() -> None:
    found = Evaluator(LABELS[:1], NUM_TEXTS, SETTINGS)
    found.add_task("how_urgent", "urgency", scenes.FOLLOWING["how_urgent"])
    found.add_control("no instruction", PromptKind.NO_INSTRUCTION, noise(NUM_TEXTS), ["how_urgent"])
    text = Page(render(found.finish(ROWS, KEYS))).text
    assert "Gain over no instruction" in text
    assert "Flip rate0" not in text


@settings(max_examples=50)
@given(st.text(max_size=50))
def test_text_is_shown_as_it_is(text: str) -> None:
    page = Page(tag("p", text, title=text))
    shown = "".join(char if char.isprintable() or char in "\t\n\r" else " " for char in text)
    found = "".join(char if char.isprintable() or char in "\t\n\r" else " " for char in page.text)
    assert len(page.tags) == 1
    assert found.replace("\ufffd", " ").split() == shown.replace("\ufffd", " ").split()


def test_markup_is_not_escaped_twice() -> None:
    assert tag("p", "a < b", [tag("b", "&"), Markup("<i>")]) == "<p>a &lt; b<b>&amp;</b><i></p>"
    assert escape("'\"") == "&#x27;&quot;"


def test_long_text_is_cut() -> None:
    assert foreign("a" * 20, 10) == f'<bdi title="{"a" * 20}">{"a" * 9}…</bdi>'
    assert foreign("a" * 10, 10) == f"<bdi>{'a' * 10}</bdi>"
