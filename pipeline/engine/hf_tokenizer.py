"""Opens a model's tokenizer with the `tokenizers` library alone: no torch, no transformers.

Special tokens are taken out of the tokenizer's hands: it never truncates, pads or adds any, and the
ids it would have put first and last are kept here, so that they survive truncation.
"""

import json
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordPiece

from pipeline.engine.files import ModelFiles
from pipeline.engine.spec import ModelSpec
from pipeline.errors import ConfigError

_SAMPLE = "a"


@dataclass(frozen=True, slots=True)
class RawTokenizer:
    """A tokenizer that yields text ids only, and the special ids around a whole prompt."""

    tokenizer: Tokenizer
    first: tuple[int, ...]
    last: tuple[int, ...]
    layout: dict[str, Any]
    """The parsed tokenizer.json: which normalizer, pre-tokenizer and model there are."""

    def ids(self, text: str) -> list[int]:
        """Returns the ids of a text, special tokens of its own spelling included, none added."""
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return found


def open_tokenizer(spec: ModelSpec) -> RawTokenizer:
    """Returns the model's tokenizer.

    Raises:
        ConfigError: no tokenizer file that can be read, or no end token where the family needs one.
    """
    tokenizer = _open(spec.files)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    bare = tokenizer.encode(_SAMPLE, add_special_tokens=False).ids
    full = tokenizer.encode(_SAMPLE, add_special_tokens=True).ids
    at = next((i for i in range(len(full) - len(bare) + 1) if full[i : i + len(bare)] == bare), None)
    if at is None:
        raise ConfigError(f"{spec.files.name}: the tokenizer's special tokens are not around the text")
    first, last = tuple(full[:at]), tuple(full[at + len(bare) :])
    return RawTokenizer(tokenizer, first, _end_tokens(spec, tokenizer, last), json.loads(tokenizer.to_str()))


def _open(files: ModelFiles) -> Tokenizer:
    path = files.folder / "tokenizer.json"
    if path.is_file():
        try:
            return Tokenizer.from_file(str(path))
        except Exception as error:  # the Rust side raises plain Exception
            raise ConfigError(f"{path}: cannot be read as a tokenizer ({error})") from error
    vocabulary = files.folder / "vocab.txt"
    if vocabulary.is_file():
        return _word_piece(files, str(vocabulary))
    raise ConfigError(
        f"{files.name}: {files.folder} has no tokenizer.json. Write one once with "
        "`AutoTokenizer.from_pretrained(folder).save_pretrained(folder)`"
    )


def _word_piece(files: ModelFiles, vocabulary: str) -> Tokenizer:
    """BERT's tokenizer from its vocabulary, for folders older than tokenizer.json."""
    settings = files.read_json("tokenizer_config.json") or {}
    tokenizer = Tokenizer(WordPiece.from_file(vocabulary, unk_token="[UNK]"))  # noqa: S106 - a token of the vocabulary
    tokenizer.normalizer = normalizers.BertNormalizer(
        lowercase=bool(settings.get("do_lower_case", True)),
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=bool(settings.get("tokenize_chinese_chars", True)),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.add_special_tokens([token for token in special if tokenizer.token_to_id(token) is not None])
    from tokenizers.processors import TemplateProcessing  # noqa: PLC0415 - only old folders need it

    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return tokenizer


def _end_tokens(spec: ModelSpec, tokenizer: Tokenizer, last: tuple[int, ...]) -> tuple[int, ...]:
    """What stands after the text. transformers 5 drops `add_eos_token` where a tokenizer.json exists; we do not."""
    eos = _eos_id(spec, tokenizer)
    if spec.append_eos is False:
        return tuple(token for token in last if token != eos)
    if not spec.append_eos or last:
        return last
    if eos is None:
        raise ConfigError(
            f"{spec.files.name}: its family ends every prompt with an end token, but tokenizer_config.json names no "
            "eos_token that the vocabulary has"
        )
    return (eos,)


def _eos_id(spec: ModelSpec, tokenizer: Tokenizer) -> int | None:
    settings = spec.files.read_json("tokenizer_config.json") or {}
    special = spec.files.read_json("special_tokens_map.json") or {}
    token = settings.get("eos_token") or special.get("eos_token")
    content = token.get("content") if isinstance(token, dict) else token
    found: int | None = tokenizer.token_to_id(content) if isinstance(content, str) else None
    return found
