r"""Where a prompt may be cut, so that a text is tokenised once for many prompts.

A cut is used only when it is proven twice. By structure: no token can reach across it, because the
pre-tokenizer always splits there, or because no piece of the vocabulary holds the two characters next
to it. By trial: for every probe text the assembled ids equal those of the whole prompt. Where no cut
passes, the prompt is tokenised whole.

    head                     text        tail
    Instruct: ...\nQuery | : + the text + \n | ...
                          ^ cut             ^ cut: the context between the cuts is tokenised with the text
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from pipeline.engine.borders import Borders
from pipeline.engine.hf_tokenizer import RawTokenizer

_MAX_CONTEXT = 24
"""Characters of the template that may be tokenised with the text; a context longer than that shares little."""

PROBES = (
    "",
    " ",
    "a",
    "A server is down",
    "  two spaces before and after  ",
    "\n",
    "\nnew line first",
    "\r\n\r\nnew lines first\n\n",
    "\ttab first\t",
    ":colon first",
    ": colon",
    "...",
    "-",
    "'s apostrophe",
    "'re",
    '"quoted"',
    "(bracket)",
    "<tag> text",
    "</tag>",
    "#1 in the queue",
    "42",
    "1234567890",
    " 42",
    "%20",
    "\u0301combining acute first",
    "e\u0301 decomposed",
    "\u00e9 composed",
    "\u0338 overlay",
    "\u0652\u0651 arabic marks",
    "\u00a0no-break space first",
    "\u3000ideographic space first",
    "\u200bzero width first",
    "\u200d joiner",
    "\ufeffbyte order mark",
    "\u2028line separator",
    "\x00nul",
    "\x1bcontrol",
    "\u00b4 acute",
    "\u00bd \ufb01 \u2167 \u33a5",
    "\uff21\uff22 full width",
    "\u05e9\u05dc\u05d5\u05dd",
    "\u0645\u0631\u062d\u0628\u0627",
    "\u670d\u52a1\u5668\u574f\u4e86",
    "\u30b5\u30fc\u30d0\u30fc",
    "\uc11c\ubc84",
    "\u0e40\u0e0b\u0e34\u0e23\u0e4c\u0e1f",
    "\U0001f600 emoji",
    "\U0001f469\u200d\U0001f4bb",
    "\U0001f1e9\U0001f1ea",
    "\u2581lower one eighth block",
    "\u2581\u2581",
    "{text}",
    "{instruction}",
    "Query: again",
    "query:",
    "_underscore",
    "camelCase",
    "x" * 300,
    " . ",
    "ends with colon:",
    "ends with space ",
    "ends with newline\n",
    "ends with mark e\u0301",
)


@dataclass(frozen=True, slots=True)
class Cut:
    """What is tokenised with a text."""

    anchor: str
    """Stands before `left` where the tokenizer puts a blank before everything: the blank lands on it, and its
    ids are dropped."""
    left: str
    right: str
    num_anchor_ids: int


@dataclass(frozen=True, slots=True)
class Join:
    """A prompt as ids around a text's ids."""

    cut: Cut | None
    """None: no cut is proven, and the prompt is tokenised whole."""
    head: tuple[int, ...]
    tail: tuple[int, ...]


class Joiner:
    """Finds joins for one tokenizer."""

    def __init__(self, raw: RawTokenizer, probes: Sequence[str] = PROBES) -> None:
        self._raw = raw
        self._borders = Borders(raw)
        added = self._borders.added_tokens[:32]
        around = [f"{before}{token}{after}" for token in added for before, after in (("", " x"), (" ", ""), ("x", ""))]
        self._probes = [*probes, *around]

    def join(self, head: str, tail: str, prepare: Callable[[str], str]) -> Join:
        """Returns the join of a prompt; `prepare` is what is done to every text first (strip, lowercase)."""
        texts = [prepare(probe) for probe in self._probes]
        whole = [self._raw.ids(head + text + tail) for text in texts]
        for cut in self._cuts(head, tail, texts):
            parts = [self._raw.ids(cut.anchor + cut.left + text + cut.right)[cut.num_anchor_ids :] for text in texts]
            ends = _ends(parts, whole)
            if ends is not None:
                return Join(cut, *ends)
        return Join(None, (), ())

    def _cuts(self, head: str, tail: str, texts: Sequence[str]) -> Iterator[Cut]:
        """Cuts that hold by structure, those with the shortest context first."""
        borders = self._borders
        lefts = [n for n in range(min(len(head), _MAX_CONTEXT) + 1) if borders.holds_left(head, n, texts)]
        rights = [n for n in range(min(len(tail), _MAX_CONTEXT) + 1) if borders.holds_right(tail, n, texts)]
        for num_left, num_right in sorted(product(lefts, rights), key=sum):
            before, left = head[: len(head) - num_left], head[len(head) - num_left :]
            anchor = before[-1] if borders.needs_anchor(before, left) else ""
            yield Cut(anchor, left, tail[:num_right], len(self._raw.ids(anchor)))


def _ends(parts: list[list[int]], whole: list[list[int]]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The constant ids around the parts, None where they are not constant.

    One probe alone does not say how many of the ids outside its part stand before it, so every share is tried.
    """
    outside = len(whole[0]) - len(parts[0])
    for num_head in range(max(outside, -1), -1, -1):
        head, tail = whole[0][:num_head], whole[0][len(whole[0]) - (outside - num_head) :]
        if all(full == head + part + tail for part, full in zip(parts, whole, strict=True)):
            return tuple(head), tuple(tail)
    return None
