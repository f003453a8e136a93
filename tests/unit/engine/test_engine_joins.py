"""Assembled ids are the ids of the whole prompt, for every class of tokenizer and any text."""

import json
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pipeline.engine.hf_tokenizer import RawTokenizer
from pipeline.engine.joins import Join, Joiner
from tests.unit.engine.tiny_tokenizers import TOKENIZERS

PROMPTS = [
    ("", ""),
    ("query: ", ""),
    ("Instruct: Judge how urgent it is\nQuery: ", ""),
    ("Instruct: Judge how urgent it is\nQuery:", ""),
    ("Instruct: Judge \n Query: ", ""),
    ("Represent the support ticket for classification: ", ""),
    ("title: none | text: ", ""),
    ("<instruct>Judge it\n<query>", "\n<response>"),
    ("### Input:\n", "\n\n### Instruction:\nHow urgent is it?\n\n### Response:"),
    ("<|im_start|>system\nJudge.<|im_end|>\n<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"),
    ("\u70ba\u8fd9\u4e2a\u53e5\u5b50\u751f\u6210\u8868\u793a\uff1a", ""),
]

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.lists(
    st.sampled_from(
        [
            " ",
            "  ",
            "\n",
            "\n\n",
            "\r\n",
            "\t",
            ":",
            "a",
            "the",
            "\u0301",
            "\u200d",
            "\u2581",
            "</s>",
            "<s>",
            "[SEP]",
            "<mask>",
            "<|endoftext|>",
            "<|im_end|>",
            "<0x0A>",
            "\x00",
            "\U0001f600",
            "\u05e9",
            "1",
            "'s",
            ">",
            "<",
            "#",
        ]
    ),
    max_size=12,
).map("".join)


@cache
def joined(kind: str) -> tuple[RawTokenizer, dict[tuple[str, str], Join]]:
    tokenizer: Tokenizer = TOKENIZERS[kind]()
    raw = RawTokenizer(tokenizer, (), (), json.loads(tokenizer.to_str()))
    joiner = Joiner(raw)
    return raw, {prompt: joiner.join(*prompt, str) for prompt in PROMPTS}


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=120)
@given(text=TEXTS)
@example(text="")
@example(text=" ")
@example(text="\n\u0301 x")
@example(text="###")
def test_assembled_ids_are_the_ids_of_the_whole_prompt(kind: str, text: str) -> None:
    raw, joins = joined(kind)
    for (head, tail), join in joins.items():
        if join.cut is None:
            continue
        cut = join.cut
        part = raw.ids(cut.anchor + cut.left + text + cut.right)[cut.num_anchor_ids :]
        assert [*join.head, *part, *join.tail] == raw.ids(head + text + tail), (head, cut)


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("prompt", PROMPTS[:7], ids=[head.strip()[:12] for head, _ in PROMPTS[:7]])
def test_every_common_template_has_a_proven_cut(kind: str, prompt: tuple[str, str]) -> None:
    assert joined(kind)[1][prompt].cut is not None


@pytest.mark.parametrize("kind", ["unigram_xlmr", "unigram_t5"])
def test_unigram_is_cut_between_words_only(kind: str) -> None:
    """Two segmentations of one score are told apart by rounding, which what stands before decides."""
    cut = joined(kind)[1]["Instruct: Judge how urgent it is\nQuery:", ""].cut
    assert cut is not None
    assert cut.left == "\nQuery:"


def test_a_cut_through_a_word_is_never_accepted() -> None:
    raw, _ = joined("sentencepiece_bpe_gemma")
    cut = Joiner(raw, probes=["q"]).join("the print", "", str).cut
    assert cut is not None
    assert cut.left == " print"


def test_a_prompt_without_a_place_to_cut_is_tokenised_whole() -> None:
    raw, _ = joined("byte_bpe_qwen")
    assert Joiner(raw).join("x" * 60, "", str).cut is None


def test_tasks_of_one_template_share_the_tokenised_text() -> None:
    raw, _ = joined("byte_bpe_qwen")
    joiner = Joiner(raw)
    cuts = {joiner.join(f"Instruct: {what}\nQuery:", "", str).cut for what in ("urgency", "topic", "mood (angry?)")}
    assert len(cuts) == 1
