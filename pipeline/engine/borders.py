"""Whether a tokenizer can never have a token across a border of a prompt, judged from its tokenizer.json.

Four sorts of tokenizers, told apart by their pre-tokenizer:
BERT's splits at blanks and punctuation marks; a regular expression (Qwen, GPT-2) splits where it
does; WhitespaceSplit and Metaspace (XLM-R, T5) split at blanks; SentencePiece BPE (Llama, Mistral, Gemma)
splits nowhere. Where the pre-tokenizer does not split, the vocabulary decides: a token can reach across a
border only if some piece holds the two characters next to it. Not so for Unigram inside a word: of two
segmentations with one score, rounding picks, and it depends on what stands before.
"""

import string
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from pipeline.engine.hf_tokenizer import RawTokenizer

_BLANK = "\u2581"
_BERT_BORDERS = frozenset(string.whitespace + string.punctuation)


class Borders:
    """The borders of one tokenizer."""

    def __init__(self, raw: RawTokenizer) -> None:
        self._tokenizer = raw.tokenizer
        self._layout = raw.layout
        self.added_tokens = [str(token["content"]) for token in raw.layout.get("added_tokens", ())]

    def holds_left(self, head: str, size: int, texts: Sequence[str]) -> bool:
        """Whether `head[:-size] | head[-size:] + text` can be cut for every text."""
        before, context = head[: len(head) - size], head[len(head) - size :]
        if not before:
            return True
        if any(before.endswith(token[:n]) for token in self.added_tokens for n in range(1, len(token))):
            return False
        if self._by_words:
            return before[-1] in _BERT_BORDERS or context[:1] in _BERT_BORDERS - {""}
        if not context or (before[-1].isspace() and context[0].isspace()):
            return False
        if self._by_pattern:
            return all(self._split_at(before, context + text) for text in texts)
        return self._holds_between(before[-1], context[0])

    def holds_right(self, tail: str, size: int, texts: Sequence[str]) -> bool:
        """Whether `text + tail[:size] | tail[size:]` can be cut for every text."""
        context, after = tail[:size], tail[size:]
        if not after or any(after.startswith(token) for token in self.added_tokens):
            return True
        if self._by_words:
            return after[0] in _BERT_BORDERS or context[-1:] in _BERT_BORDERS - {""}
        if not context or (context[-1].isspace() and after[0].isspace()):
            return False
        if self._by_pattern:
            return all(self._split_at(text + context, after) for text in texts)
        return self._holds_between(context[-1], after[0])

    def needs_anchor(self, before: str, context: str) -> bool:
        """Whether the tokenizer would put a blank before the context that the whole prompt does not have there."""
        if not before or not self._prepends:
            return False
        return not ("Metaspace" in self._kinds and (context.startswith(" ") or self._is_blank(context[:1])))

    def _split_at(self, before: str, after: str) -> bool:
        """Whether the pre-tokenizer starts a new word exactly between the two."""
        start, whole = self._normalized(before), self._normalized(before + after)
        if not whole.startswith(start):
            return False
        words = self._tokenizer.pre_tokenizer.pre_tokenize_str(whole)
        return any(word_start == len(start) for _, (word_start, _) in words) or len(whole) == len(start)

    def _normalized(self, text: str) -> str:
        normalizer = self._tokenizer.normalizer
        return text if normalizer is None else str(normalizer.normalize_str(text))

    def _holds_between(self, before: str, after: str) -> bool:
        if self._is_blank(after):
            return True
        if self._layout["model"]["type"] == "Unigram":
            return False
        if self._byte_level:
            return _ALPHABET[before.encode()[-1]] + _ALPHABET[after.encode()[0]] not in self._pieces
        first, second = (_BLANK if char == " " else char for char in (before, after))
        return first + second not in self._pieces and self._is_known(first) and self._is_known(second)

    def _is_blank(self, char: str) -> bool:
        """Whether a word always ends before this character."""
        return (self._by_blanks and char == " ") or ("WhitespaceSplit" in self._kinds and char.isspace())

    def _is_known(self, char: str) -> bool:
        """Unknown neighbours are fused into one token, which no look at the pieces would show."""
        spelled = [char, *(f"<0x{byte:02X}>" for byte in char.encode())]
        return any(self._tokenizer.token_to_id(piece) is not None for piece in spelled)

    @cached_property
    def _kinds(self) -> set[str]:
        return {part["type"] for part in _parts(self._layout.get("pre_tokenizer"))}

    @cached_property
    def _by_words(self) -> bool:
        return "BertPreTokenizer" in self._kinds

    @cached_property
    def _by_pattern(self) -> bool:
        """Whether words are cut out by a regular expression. Gemma's Split at a blank never fires: blanks are gone."""
        parts = list(_parts(self._layout.get("pre_tokenizer")))
        return any(part["type"] == "ByteLevel" for part in parts)

    @cached_property
    def _by_blanks(self) -> bool:
        parts = list(_parts(self._layout.get("pre_tokenizer")))
        return "WhitespaceSplit" in self._kinds or any(
            part["type"] == "Metaspace" and part.get("split", True) for part in parts
        )

    @cached_property
    def _prepends(self) -> bool:
        kinds = {part["type"] for part in _parts(self._layout.get("normalizer"))}
        metaspace = [part for part in _parts(self._layout.get("pre_tokenizer")) if part["type"] == "Metaspace"]
        return "Prepend" in kinds or any(part.get("prepend_scheme", "always") != "never" for part in metaspace)

    @cached_property
    def _byte_level(self) -> bool:
        normalizer = {part["type"] for part in _parts(self._layout.get("normalizer"))}
        return "ByteLevel" in self._kinds | normalizer

    @cached_property
    def _pieces(self) -> str:
        """The whole vocabulary as one string, to look for character pairs in."""
        return "\x00".join(self._tokenizer.get_vocab(with_added_tokens=False))


def _byte_alphabet() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes: printable Latin-1 stays, the rest moves above 255."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    moved = iter(range(256))
    return [chr(byte) if byte in printable else chr(256 + next(moved)) for byte in range(256)]


_ALPHABET = _byte_alphabet()


def _parts(part: Any) -> Iterator[dict[str, Any]]:
    """A normalizer or pre-tokenizer and everything in its sequences."""
    if isinstance(part, dict):
        yield part
        for key in ("pretokenizers", "normalizers"):
            for inner in part.get(key, ()):
                yield from _parts(inner)
