"""Texts that are hard on a tokenizer, given to a real one: the packaged model's."""

from functools import cache

from tokenizers import Tokenizer as HubTokenizer

from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.entry import load_tokenizer
from pipeline.engine.spec import resolve
from pipeline.interfaces import Tokenizer
from pipeline.records.batches import TokenBatch
from tests.bad_input.case import Case, Place

MODEL = ModelConfig(model="packaged:all-MiniLM-L6-v2")


@cache
def tokenizer() -> Tokenizer:
    """MiniLM's: 256 tokens a prompt."""
    return load_tokenizer(MODEL, {"plain": TaskConfig(model="m")})


def _million(_place: Place) -> str:
    tokens = tokenizer().encode(["x" * 1_000_000, "good"], ["plain"])
    return f"{tokens.num_texts} texts, {_num_tokens(tokens, 0)} and {_num_tokens(tokens, 1)} tokens"


def _special(_place: Place) -> str:
    tokens = tokenizer().encode(["[SEP]" * 1_000, "[CLS] good [SEP]", "good"], ["plain"])
    cut = tokens.truncated[0].astype(bool).tolist()
    return f"{tokens.num_texts} texts, cut: {cut}"


def _as_trained(_place: Place) -> str:
    text = "[CLS] good [SEP] morning"
    ours = tokenizer().encode([text], ["plain"]).ids.tolist()
    file = resolve(MODEL).files.folder / "tokenizer.json"
    reference = HubTokenizer.from_file(str(file))
    reference.no_padding()
    theirs = reference.encode(text, add_special_tokens=False).ids
    return "the ids that the model's own tokenizer gives" if ours == theirs else f"{ours}, not {theirs}"


def _num_tokens(tokens: TokenBatch, text: int) -> int:
    segment = tokens.segments[0, text]
    return int(tokens.offsets[segment + 1] - tokens.offsets[segment])


def _literal(_place: Place) -> str:
    texts = ["{text} {0} {{7*7}} %s", "{text} {0} {{49}} %s", "one {0} {{7*7}} %s"]
    tokens = tokenizer().encode(texts, ["plain"])
    runs = {tuple(tokens.ids[tokens.offsets[s] : tokens.offsets[s + 1]].tolist()) for s in tokens.segments[0]}
    return f"{len(runs)} different texts"


CASES = [
    Case(23, "a word of a million characters, and a good text beside it", "2 texts, 1 and 1 tokens", _million),
    Case(25, "nothing but [SEP] and [CLS], tokenised", "3 texts, cut: [True, False, False]", _special),
    Case(25, "[SEP] and [CLS] within a text", "the ids that the model's own tokenizer gives", _as_trained),
    Case(26, "placeholders in a text, tokenised", "3 different texts", _literal),
]
