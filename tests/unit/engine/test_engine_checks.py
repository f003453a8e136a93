"""What a model cannot do is refused before anything is loaded, with what it can do in the message."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.engine.catalogue import INSTRUCTABLE, STYLES, catalogue
from pipeline.engine.entry import check_tasks, identify, load_tokenizer
from pipeline.engine.spec import resolve
from pipeline.engine.tokenizer import PromptTokenizer
from pipeline.errors import ConfigError
from tests.unit.engine.tiny_models import FAMILIES, INSTRUCTION, build

MINILM = "packaged:all-MiniLM-L6-v2"
FREE = {"instruction_style": "free_form", "query_template": "{instruction}: {text}"}


def check(folder: Path | str, overrides: dict[str, Any], task: dict[str, Any], **model: Any) -> None:
    check_tasks(
        "m",
        ModelConfig(model=str(folder), overrides=overrides, **model),
        {"t": TaskConfig.model_validate({"model": "m", **task})},
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for family in ("bert-e5", "bert-bge", "nomic_bert", "gemma3_text", "qwen3", "llama-inbedder"):
        build(family, root / family)
    return root


REFUSED = [
    (
        "bert-e5",
        {},
        {"instruction": "Judge the urgency"},
        "takes no instruction.*intfloat/multilingual-e5-large-instruct",
    ),
    ("bert-e5", {}, {"instruction": "quer"}, "Did you mean 'query'"),
    ("bert-bge", {}, {"instruction": "Judge"}, "trained without instructions.*Qwen/Qwen3-Embedding-0.6B"),
    ("bert-bge", {}, {"instruction": "Judge", "mode": "retrieval"}, "trained without instructions"),
    (
        "nomic_bert",
        {},
        {"instruction": "clusterin"},
        "search_query, search_document, classification, clustering.*mean 'clu",
    ),
    ("nomic_bert", {}, {}, "is missing, but .* knows only its own labels"),
    ("gemma3_text", {}, {"instruction": "urgency"}, "sentence similarity"),
    ("gemma3_text", {}, {"instruction": "clustering", "dimension": 12}, "trained to be cut to 768, 512, 256, 128 only"),
    ("qwen3", {}, {"instruction": "x", "dimension": 33}, "vectors of .* have 32"),
    ("qwen3", {}, {"instruction": "x", "max_tokens": 49}, "takes at most 48"),
    ("bert-bge", {}, {"dimension": 16}, "nobody says to which sizes"),
    ("llama-inbedder", {}, {}, "ask it a question"),
    ("bert-bge", {"poolng": "mean"}, {}, "Did you mean 'pooling'"),
    ("bert-bge", {"pooling": "meen"}, {}, "Did you mean 'mean'"),
    ("bert-bge", {"pooling": 3}, {}, "expected str or list"),
    ("bert-bge", {"instruction_style": "free"}, {}, "Did you mean 'free_form'"),
    ("bert-bge", {"instruction_style": "free_form"}, {}, "query_template"),
    ("bert-bge", {**FREE, "query_template": "{instruction}"}, {}, "expected {text} and {instruction}"),
    ("bert-bge", {"like": "Qwen/Qwen3-Embedding-0.6"}, {}, "Did you mean 'Qwen/Qwen3-Embedding-0.6B'"),
]


@pytest.mark.parametrize(("family", "overrides", "task", "message"), REFUSED)
def test_refused(folders: Path, family: str, overrides: dict[str, Any], task: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check(folders / family, {**FAMILIES[family].overrides, **overrides}, task)
    assert str(caught.value).startswith("models.m: ")


ACCEPTED = [
    ("bert-e5", {}, {}),
    ("bert-e5", {}, {"instruction": "document"}),
    ("bert-e5", {}, {"mode": "retrieval"}),
    ("nomic_bert", {}, {"mode": "retrieval"}),
    ("nomic_bert", {}, {"instruction": "clustering"}),
    ("qwen3", {}, {"instruction": INSTRUCTION, "dimension": 32}),
    ("qwen3", {}, {"mode": "retrieval", "query_instruction": INSTRUCTION}),
    ("bert-bge", FREE, {"instruction": INSTRUCTION}),
    ("bert-bge", {"matryoshka_dims": [16]}, {"dimension": 16}),
]


@pytest.mark.parametrize(("family", "overrides", "task"), ACCEPTED)
def test_accepted(folders: Path, family: str, overrides: dict[str, Any], task: dict[str, Any]) -> None:
    check(folders / family, {**FAMILIES[family].overrides, **overrides}, task)


def test_sides_of_a_retrieval_task_have_their_own_prompts(folders: Path) -> None:
    task = TaskConfig(model="m", mode="retrieval")
    shown = {}
    for family in ("bert-e5", "nomic_bert", "gemma3_text", "qwen3"):
        model = ModelConfig(model=str(folders / family), overrides=dict(FAMILIES[family].overrides))
        tokenizer = load_tokenizer(model, {"t": task})
        assert isinstance(tokenizer, PromptTokenizer)
        shown[family] = (tokenizer.show("t", "x")[0], tokenizer.show("t:query", "x")[0])
    assert shown == {
        "bert-e5": ("passage: x", "query: x"),
        "nomic_bert": ("search_document: x", "search_query: x"),
        "gemma3_text": ("title: none | text: x", "task: search result | query: x"),
        "qwen3": ("x", "x"),
    }


def test_a_chat_instruction_ends_with_punctuation(folders: Path) -> None:
    model = ModelConfig(model=str(folders / "qwen3"), overrides={"like": "Qwen/Qwen3-VL-Embedding-2B"})
    tokenizer = load_tokenizer(model, {"t": TaskConfig(model="m", instruction="Judge it")})
    assert isinstance(tokenizer, PromptTokenizer)
    shown = tokenizer.show("t", "x")[0]
    assert shown == "<|im_start|>system\nJudge it.<|im_end|>\n<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n"


def test_an_unknown_folder_must_say_what_it_is(folders: Path) -> None:
    with pytest.raises(ConfigError, match="instruction_style is in neither the catalogue nor the model's files"):
        check(folders / "bert-bge", {}, {})


def test_an_unknown_pooling_must_be_given(tmp_path: Path) -> None:
    folder = build("bert-bge", tmp_path)
    (folder / "modules.json").unlink()
    with pytest.raises(ConfigError, match=r"pooling is in neither"):
        check(folder, {"instruction_style": "none"}, {})
    check(folder, {"instruction_style": "none", "pooling": "cls"}, {})


@pytest.mark.parametrize(("family", "module"), [("bert-bge", "1_Pooling"), ("t5-instructor", "2_Dense")])
def test_a_module_that_is_named_and_not_there_is_refused(family: str, module: str, tmp_path: Path) -> None:
    """Half a copy of a folder: without it another pooling would be guessed, or a layer left out."""
    folder = build(family, tmp_path)
    shutil.rmtree(folder / module)
    with pytest.raises(ConfigError, match=f"modules.json names {module}, which has no config.json"):
        check(folder, {"instruction_style": "none"}, {})


@pytest.mark.parametrize(
    ("model_type", "padding", "positions"),
    [
        ("xlm-roberta", 1, 128),
        ("roberta", 3, 126),
        ("camembert", 0, 129),
        ("roberta", None, 128),
        ("mpnet", 3, 128),
        ("bert", 3, 130),
    ],
)
def test_positions_that_begin_behind_the_padding_are_never_exceeded(
    model_type: str, padding: int | None, positions: int, tmp_path: Path
) -> None:
    folder = build("bert-bge", tmp_path)
    path = folder / "config.json"
    changes = {"model_type": model_type, "pad_token_id": padding, "max_position_embeddings": 130}
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    for name in ("sentence_bert_config.json", "tokenizer_config.json"):
        (folder / name).unlink(missing_ok=True)
    assert resolve(ModelConfig(model=str(folder), overrides={"instruction_style": "none"})).max_length == positions


def test_pickled_weights_are_never_read(tmp_path: Path) -> None:
    folder = build("bert-bge", tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="Only safetensors are loaded"):
        check(folder, {"instruction_style": "none"}, {})


def test_pickled_dense_weights_are_never_read(tmp_path: Path) -> None:
    folder = build("t5-instructor", tmp_path)
    dense = folder / "2_Dense" / "model.safetensors"
    dense.rename(dense.with_name("pytorch_model.bin"))
    with pytest.raises(ConfigError, match=r"2_Dense has no model\.safetensors"):
        check(folder, {"like": "hkunlp/instructor-base"}, {"instruction": "x: "})


def test_remote_code_is_refused_unless_the_native_class_stands_in(tmp_path: Path) -> None:
    folder = build("qwen2-bidirectional", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "modeling.Model"}}))
    with pytest.raises(ConfigError, match="never run"):
        check(folder, FREE, {"instruction": "x"})
    with pytest.raises(ConfigError, match="bidirectional is in neither"):
        check(folder, {**FREE, "remote_code": False}, {"instruction": "x"})
    check(folder, {"like": "Alibaba-NLP/gte-Qwen2-1.5B-instruct"}, {"instruction": "x"})


def test_a_module_nobody_knows_is_refused(tmp_path: Path) -> None:
    folder = build("bert-bge", tmp_path)
    modules = json.loads((folder / "modules.json").read_text())
    modules.insert(1, {"idx": 9, "name": "9", "path": "9_CNN", "type": "sentence_transformers.models.CNN"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ConfigError, match="not supported"):
        check(folder, {"instruction_style": "none"}, {})


def test_half_precision_is_refused_where_it_overflows(folders: Path) -> None:
    with pytest.raises(ConfigError, match="use bfloat16 or float32"):
        check(
            folders / "gemma3_text",
            {"like": "google/embeddinggemma-300m"},
            {"instruction": "clustering"},
            dtype="float16",
        )


def test_more_positions_than_the_model_has_are_refused(folders: Path) -> None:
    with pytest.raises(ConfigError, match="positions for 128"):
        check(folders / "bert-bge", {"instruction_style": "none"}, {}, max_length=129)


def test_prompts_shipped_beside_a_model_say_what_it_is(tmp_path: Path) -> None:
    folder = build("qwen3", tmp_path)
    prompts = {"query": "Instruct: Find it\nQuery:", "document": ""}
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    spec = resolve(ModelConfig(model=str(folder)))
    assert (spec.instruction_style, spec.query_template) == ("free_form", "Instruct: {instruction}\nQuery:{text}")
    assert spec.origins["query_template"] == "prompts"


def test_no_such_model_is_said_plainly() -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        check("./nowhere", {}, {})
    with pytest.raises(ConfigError, match="Did you mean 'packaged:all-MiniLM-L6-v2'"):
        check("packaged:all-MiniLM", {}, {})


def test_a_hub_model_that_is_neither_cached_nor_reachable_is_a_fault_of_the_check(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="not in the local cache"):
        check("intfloat/e5-small", {}, {})


def test_the_packaged_model_is_known_by_its_weights() -> None:
    identity = identify(ModelConfig(model=MINILM))
    assert identity.dimension == 384
    assert identity.parts["weights"] == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def test_everything_that_decides_a_vector_changes_the_identity(tmp_path: Path) -> None:
    folder = build("bert-bge", tmp_path)

    def parts(**overrides: Any) -> dict[str, str]:
        model = ModelConfig(model=str(folder), overrides={"instruction_style": "none", **overrides})
        return dict(identify(model).parts)

    before = parts()
    assert parts(pooling="mean") != before
    assert parts(query_template="q: {text}") != before
    assert parts(max_length=20) != before
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert parts()["weights"] != before["weights"]


def test_hashes_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = build("bert-bge", tmp_path / "model")
    model = ModelConfig(model=str(folder), overrides={"instruction_style": "none"})
    first = identify(model)
    monkeypatch.setattr("hashlib.file_digest", None)
    assert identify(model) == first


def test_every_catalogue_entry_has_a_source_and_a_kind_or_says_that_it_is_unknown() -> None:
    for entry in catalogue().values():
        assert entry.sources, entry.id
        assert entry.instruction_style in {*STYLES, None}, entry.id
        if entry.instruction_style is None:
            assert entry.unconfirmed, entry.id
        for template in (entry.query_template, entry.query_template_plain, entry.document_template):
            assert template is None or template.count("{text}") == 1, entry.id
        if entry.instruction_style in {"free_form", "question_suffix", "chat", "task_label"}:
            assert entry.query_template is None or "{instruction}" in entry.query_template, entry.id


def test_models_named_in_messages_take_instructions_without_remote_code() -> None:
    for name in INSTRUCTABLE:
        entry = catalogue()[name]
        assert entry.instruction_style == "free_form"
        assert entry.remote_code is False
