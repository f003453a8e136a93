"""Tokenizers trained here, one per class the engine has exactness rules for."""

import json
from collections.abc import Callable
from functools import cache

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram, WordPiece
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer, UnigramTrainer

QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CORPUS = [
    "the printer on the second floor does not answer",
    "server room is on fire, please come at once!",
    "I can not log in: password expired (again?)",
    "Instruct: Judge how urgent the support ticket is",
    "Query: invoice 2024-11 is wrong",
    "query: vpn keeps dropping; passage: restart the client",
    "Represent the support ticket for classification: mail",
    "bonjour, mon \u00e9cran reste noir \u2014 \u00e0 l'aide",
    "\u05e9\u05dc\u05d5\u05dd \u05d4\u05de\u05d3\u05e4\u05e1\u05ea \u05dc\u05d0 \u05e2\u05d5\u05d1\u05d3\u05ea",
    "\u0645\u0631\u062d\u0628\u0627 \u0627\u0644\u062e\u0627\u062f\u0645 \u0645\u0639\u0637\u0644",
    "\u670d\u52a1\u5668\u574f\u4e86 \u8bf7\u5e2e\u5fd9",
    "ERROR [main] java.lang.NullPointerException at com.acme.App.run(App.java:42)",
    "task: classification | query: title: none | text: hello",
    "### Input: ### Instruction: ### Response:",
    "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 .,:;!?()[]{}<>|#'\"-_/\\@%&*+=~^$",
] * 4


@cache
def wordpiece() -> Tokenizer:
    """BERT, E5, BGE. Written down, not trained: the trainer breaks ties differently in every process."""
    normalizer, pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = {word for line in CORPUS for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(line))}
    pieces = words | {character for word in words for character in word} | {word[:3] for word in words}
    pieces |= {f"##{word[begin:]}" for word in words for begin in range(1, len(word))}
    pieces |= {f"##{character}" for word in words for character in word}
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {piece: number for number, piece in enumerate([*special, *sorted(pieces)])}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106 - a token
    tokenizer.add_special_tokens(special)
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return tokenizer


@cache
def unigram_xlmr() -> Tokenizer:
    """XLM-R: words split at spaces before Viterbi."""
    tokenizer = _unigram(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return tokenizer


@cache
def unigram_t5() -> Tokenizer:
    """T5: the same without a first token."""
    tokenizer = _unigram(["<pad>", "</s>", "<unk>"])
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def _unigram(special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    trainer = UnigramTrainer(vocab_size=400, special_tokens=special, unk_token="<unk>", show_progress=False)  # noqa: S106 - a token
    tokenizer.train_from_iterator(CORPUS, trainer)
    # The trainer's order of pieces that score alike, and the last digits of scores, differ in every process.
    trained = [(piece, round(score, 6)) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"]]
    pieces = sorted(trained[len(special) :], key=lambda pair: (-pair[1], pair[0]))
    tokenizer.model = Unigram([*trained[: len(special)], *pieces], special.index("<unk>"), byte_fallback=False)
    return tokenizer


@cache
def byte_bpe_qwen() -> Tokenizer:
    """Qwen2, Qwen3: bytes, split by a regular expression, NFC."""
    return _byte_bpe(QWEN_PATTERN, "<|endoftext|>")


@cache
def byte_bpe_modernbert() -> Tokenizer:
    """ModernBERT: GPT-2's byte alphabet and pattern, [CLS] and [SEP]."""
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = BpeTrainer(
        vocab_size=500,
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return tokenizer


def _byte_bpe(pattern: str, end: str) -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=500,
        special_tokens=[end, "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = TemplateProcessing(single=f"$A {end}", special_tokens=[(end, 0)])
    return tokenizer


@cache
def sentencepiece_bpe() -> Tokenizer:
    """Llama and Mistral: one BPE over the whole text, a blank put in front, bytes for what is unknown."""
    tokenizer = _sentencepiece()
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return tokenizer


@cache
def sentencepiece_bpe_metaspace() -> Tokenizer:
    """The same as newer conversions write it: Metaspace that does not split."""
    tokenizer = _sentencepiece()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


@cache
def sentencepiece_bpe_gemma() -> Tokenizer:
    """Gemma: nothing put in front, <bos> and <eos>."""
    tokenizer = _sentencepiece()
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return tokenizer


def _sentencepiece() -> Tokenizer:
    """Trained with words apart, as SentencePiece does, and used without."""
    tokenizer = Tokenizer(BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))  # noqa: S106 - a token
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(CORPUS, BpeTrainer(vocab_size=700, special_tokens=special, show_progress=False))
    layout = tokenizer.to_str()
    fresh = Tokenizer.from_str(layout)
    fresh.pre_tokenizer = None
    return _without_added_bytes(fresh)


def _without_added_bytes(tokenizer: Tokenizer) -> Tokenizer:
    """`<0x0A>` is a piece for the byte, not a token that a text may spell."""
    import json  # noqa: PLC0415

    layout = json.loads(tokenizer.to_str())
    layout["added_tokens"] = [token for token in layout["added_tokens"] if not token["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(layout))


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "wordpiece": wordpiece,
    "unigram_xlmr": unigram_xlmr,
    "unigram_t5": unigram_t5,
    "byte_bpe_qwen": byte_bpe_qwen,
    "byte_bpe_modernbert": byte_bpe_modernbert,
    "sentencepiece_bpe": sentencepiece_bpe,
    "sentencepiece_bpe_metaspace": sentencepiece_bpe_metaspace,
    "sentencepiece_bpe_gemma": sentencepiece_bpe_gemma,
}
