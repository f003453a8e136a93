"""Tiny models with random, seeded weights: one folder per family, with the files sentence-transformers writes."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from sentence_transformers.sentence_transformer.modules import Dense
from tokenizers import Tokenizer

from tests.unit.engine import tiny_tokenizers as tok

HIDDEN = 32
MAX_LENGTH = 48

_ENCODER = {"hidden_size": HIDDEN, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_DECODER = {**_ENCODER, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128}
_OLD = "sentence_transformers.models."
_FREE = {"instruction_style": "free_form", "query_template": "Instruct: {instruction}\nQuery: {text}"}


@dataclass(frozen=True)
class TinyModel:
    """How to build one family."""

    config_class: str
    model_class: str
    config: Mapping[str, Any]
    tokenizer: Callable[[], Tokenizer]
    pooling: tuple[str, ...]
    overrides: Mapping[str, Any]
    """What a user would give, or the catalogue knows."""
    head: str
    """The prompt in front of the text under `INSTRUCTION`."""
    tail: str = ""
    dense: tuple[tuple[int, int, str], ...] = ()
    include_prompt: bool = True
    eos: str | None = None
    max_length: int = MAX_LENGTH


INSTRUCTION = "Judge how urgent the support ticket is"
_A = f"Instruct: {INSTRUCTION}\nQuery: "
_A0 = f"Instruct: {INSTRUCTION}\nQuery:"

FAMILIES: dict[str, TinyModel] = {
    "bert-e5": TinyModel(
        "BertConfig", "BertModel", {**_ENCODER, "max_position_embeddings": 128}, tok.wordpiece, ("mean",),
        {"instruction_style": "fixed_prefix", "query_template": "query: {text}", "document_template": "passage: {text}",
         "symmetric_template": "query: {text}"}, "query: ",
    ),
    "bert-bge": TinyModel(
        "BertConfig", "BertModel", {**_ENCODER, "max_position_embeddings": 128}, tok.wordpiece, ("cls",),
        {"instruction_style": "none"}, "",
    ),
    "xlm-roberta-e5": TinyModel(
        "XLMRobertaConfig", "XLMRobertaModel", {**_ENCODER, "max_position_embeddings": 130, "pad_token_id": 1},
        tok.unigram_xlmr, ("mean",), _FREE, _A,
    ),
    "xlm-roberta-bge-m3": TinyModel(
        "XLMRobertaConfig", "XLMRobertaModel", {**_ENCODER, "max_position_embeddings": 130, "pad_token_id": 1},
        tok.unigram_xlmr, ("cls",), {"instruction_style": "none"}, "",
    ),
    "t5-instructor": TinyModel(
        "T5Config", "T5EncoderModel",
        {"d_model": HIDDEN, "d_ff": 64, "d_kv": 8, "num_layers": 2, "num_heads": 4, "pad_token_id": 0,
         "eos_token_id": 1},
        tok.unigram_t5, ("mean",),
        {"like": "hkunlp/instructor-base"}, f"{INSTRUCTION}: ", dense=((HIDDEN, 24, "Identity"),), include_prompt=False,
        eos="</s>",
    ),
    "modernbert": TinyModel(
        "ModernBertConfig", "ModernBertModel",
        {**_ENCODER, "max_position_embeddings": 128, "global_attn_every_n_layers": 2, "local_attention": 16,
         "pad_token_id": 0, "bos_token_id": 2, "cls_token_id": 2, "eos_token_id": 3, "sep_token_id": 3},
        tok.byte_bpe_modernbert, ("mean",), {"like": "nomic-ai/modernbert-embed-base"}, "classification: ",
    ),
    "nomic_bert": TinyModel(
        "NomicBertConfig", "NomicBertModel", {**_ENCODER, "max_position_embeddings": 128}, tok.wordpiece, ("mean",),
        {"like": "nomic-ai/nomic-embed-text-v1.5"}, "classification: ",
    ),
    "qwen3": TinyModel(
        "Qwen3Config", "Qwen3Model", _DECODER, tok.byte_bpe_qwen, ("lasttoken",),
        {"like": "Qwen/Qwen3-Embedding-0.6B"}, _A0, eos="<|endoftext|>",
    ),
    "mistral": TinyModel(
        "MistralConfig", "MistralModel", {**_DECODER, "sliding_window": None}, tok.sentencepiece_bpe, ("lasttoken",),
        {"like": "intfloat/e5-mistral-7b-instruct"}, _A, eos="</s>",
    ),
    "gemma3_text": TinyModel(
        "Gemma3TextConfig", "Gemma3TextModel",
        {**_DECODER, "use_bidirectional_attention": True, "sliding_window": 16, "query_pre_attn_scalar": 8,
         "layer_types": ["sliding_attention", "full_attention"]},
        tok.sentencepiece_bpe_gemma, ("mean",), {"like": "google/embeddinggemma-300m"},
        "task: classification | query: ", dense=((HIDDEN, 64, "Identity"), (64, 16, "Identity")), eos="</s>",
    ),
    "llama-inbedder": TinyModel(
        "LlamaConfig", "LlamaModel", _DECODER, tok.sentencepiece_bpe_metaspace, ("lasttoken",),
        {"like": "BrandonZYW/llama-2-7b-InBedder"}, "### Input:\n",
        tail=f"\n\n### Instruction:\n{INSTRUCTION}\n\n### Response:",
        max_length=120,
    ),
    "llama-bidirectional": TinyModel(
        "LlamaConfig", "LlamaModel", {**_DECODER, "is_causal": False}, tok.sentencepiece_bpe_metaspace, ("mean",),
        {"instruction_style": "free_form", "query_template": "{instruction}: {text}", "bidirectional": True},
        f"{INSTRUCTION}: ",
    ),
    "qwen2-bidirectional": TinyModel(
        "Qwen2Config", "Qwen2Model", {**_DECODER, "is_causal": False}, tok.byte_bpe_qwen, ("lasttoken",),
        {"like": "Alibaba-NLP/gte-Qwen2-1.5B-instruct"}, _A, eos="<|endoftext|>",
    ),
    "qwen2-kalm": TinyModel(
        "Qwen2Config", "Qwen2Model", _DECODER, tok.byte_bpe_qwen, ("mean",),
        {"like": "HIT-TMG/KaLM-embedding-multilingual-mini-instruct-v1"}, f"Instruct: {INSTRUCTION} \n Query: ",
    ),
    "gritlm": TinyModel(
        "MistralConfig", "MistralModel", {**_DECODER, "sliding_window": None, "is_causal": False},
        tok.sentencepiece_bpe_metaspace, ("mean",), {"like": "GritLM/GritLM-7B"},
        f"<|user|>\n{INSTRUCTION}\n<|embed|>\n", include_prompt=False,
    ),
    "bert-max": TinyModel(
        "BertConfig", "BertModel", {**_ENCODER, "max_position_embeddings": 128}, tok.wordpiece, ("max",),
        {"instruction_style": "none"}, "",
    ),
    "bert-weightedmean": TinyModel(
        "BertConfig", "BertModel", {**_ENCODER, "max_position_embeddings": 128}, tok.wordpiece, ("weightedmean",),
        {"instruction_style": "none"}, "", dense=((HIDDEN, 20, "Tanh"),),
    ),
    "bert-concatenation": TinyModel(
        "BertConfig", "BertModel", {**_ENCODER, "max_position_embeddings": 128}, tok.wordpiece,
        ("cls", "mean", "mean_sqrt_len_tokens"), {"instruction_style": "none"}, "",
    ),
    "qwen3-weightedmean-no-prompt": TinyModel(
        "Qwen3Config", "Qwen3Model", _DECODER, tok.byte_bpe_qwen, ("weightedmean",),
        {**_FREE, "exclude_instruction": True}, _A, include_prompt=False, eos="<|endoftext|>",
    ),
}  # fmt: skip

TASK_INSTRUCTION = {
    "bert-e5": None,
    "t5-instructor": f"{INSTRUCTION}: ",
    "modernbert": "classification",
    "nomic_bert": "classification",
    "gemma3_text": "classification",
}
"""What the task says; INSTRUCTION for every other family that takes one."""


def instruction_of(family: str) -> str | None:
    """What a task of this family has as its instruction."""
    style = FAMILIES[family].overrides.get("instruction_style")
    return None if style == "none" else TASK_INSTRUCTION.get(family, INSTRUCTION)


def build(family: str, folder: Path) -> Path:
    """Writes the family's model into the folder and returns it."""
    tiny = FAMILIES[family]
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tiny.tokenizer()
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call] # transformers leaves it bare
    torch.manual_seed(20240601)
    config = getattr(transformers, tiny.config_class)(
        vocab_size=tokenizer.get_vocab_size(), **{"initializer_range": 0.2, **tiny.config}
    )
    model = getattr(transformers, tiny.model_class)(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1 and "bias" not in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_sentence_files(folder, tiny)
    return folder


def build_head(folder: Path, inputs: int, outputs: int, *, bias: bool = False, seed: int = 0) -> Path:
    """Writes a linear map as sentence-transformers saves a Dense module, and returns its folder."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    Dense(inputs, outputs, bias=bias, activation_function=torch.nn.Identity()).save(str(folder))
    return folder


def _write_sentence_files(folder: Path, tiny: TinyModel) -> None:
    special = {"eos_token": tiny.eos} if tiny.eos else {}
    pad = {"pad_token": _pad_token(tiny.tokenizer())}
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": tiny.max_length}
    _write(folder / "tokenizer_config.json", {**tokenizer, **pad, **special})
    modules = [{"idx": 0, "name": "0", "path": "", "type": f"{_OLD}Transformer"},
               {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{_OLD}Pooling"}]  # fmt: skip
    pooling = tiny.pooling[0] if len(tiny.pooling) == 1 else list(tiny.pooling)
    _write(
        folder / "1_Pooling" / "config.json",
        {"embedding_dimension": HIDDEN, "pooling_mode": pooling, "include_prompt": tiny.include_prompt},
    )
    for number, (inputs, outputs, activation) in enumerate(tiny.dense, start=2):
        path = f"{number}_Dense"
        modules.append({"idx": number, "name": str(number), "path": path, "type": f"{_OLD}Dense"})
        module = "linear" if activation == "Identity" else "activation"
        _write(
            folder / path / "config.json",
            {
                "in_features": inputs,
                "out_features": outputs,
                "bias": activation != "Identity",
                "activation_function": f"torch.nn.modules.{module}.{activation}",
            },
        )
        weights = {"linear.weight": torch.randn(outputs, inputs) / inputs**0.5}
        if activation != "Identity":
            weights["linear.bias"] = torch.randn(outputs) * 0.1
        save_file(weights, str(folder / path / "model.safetensors"))
    modules.append({"idx": len(modules), "name": "n", "path": "9_Normalize", "type": f"{_OLD}Normalize"})
    _write(folder / "modules.json", modules)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": tiny.max_length, "do_lower_case": False})


def _pad_token(tokenizer: Tokenizer) -> str:
    return next(
        token for token in ("[PAD]", "<pad>", "<unk>", "<|endoftext|>") if tokenizer.token_to_id(token) is not None
    )


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


NASTY_TEXTS = [
    "server room is on fire",
    "the printer on the second floor does not answer, again! (since 2024-11)",
    "   ",
    "x",
    "invoice wrong " * 60,
    "\u05e9\u05dc\u05d5\u05dd \u05d4\u05de\u05d3\u05e4\u05e1\u05ea \u05dc\u05d0",
    "\u0645\u0631\u062d\u0628\u0627 \u0627\u0644\u062e\u0627\u062f\u0645",
    "\U0001f600\U0001f469\u200d\U0001f4bb ok \U0001f1e9\U0001f1ea",
    "e\u0301le\u0300ve \u0301start \u0338",
    "[SEP] </s> <s> [PAD] <|endoftext|> <mask> <|im_end|>",
    "{text} {instruction} {title}",
    "null \x00 byte \x1b[31m",
    "\u670d\u52a1\u5668\u574f\u4e86",
    "  leading and trailing  ",
    "\n\nnew lines\r\n\n",
    "a" * 100_000,
]
"""Texts that hurt."""
