"""Everything that decides a model's vectors, resolved from four layers without loading a weight.

    the user's overrides  >  sentence-transformers files  >  catalogue  >  prompts and config.json

Files come before the catalogue where authors ship them (pooling, length), because they are first-hand;
templates are in no file, so there the catalogue leads. Each field remembers which layer decided it.
What no layer knows is an error that names the field to give.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from pipeline.config.model import ModelConfig
from pipeline.engine.catalogue import FREE_STYLES, STYLES, CatalogueEntry, InstructionStyle
from pipeline.engine.files import ModelFiles, adapter_folders, find_adapter, find_model
from pipeline.engine.overrides import catalogue_entry, check_overrides
from pipeline.engine.st_files import POOLINGS, Dense, Normalize, SentenceFiles, derive_templates, read_sentence_files
from pipeline.errors import ConfigError, nearest

ENCODER_TYPES = frozenset(
    {"bert", "roberta", "xlm-roberta", "camembert", "mpnet", "distilbert", "modernbert", "nomic_bert", "t5", "mt5"}
    | {"umt5", "electra", "deberta-v2", "albert", "eurobert", "ultrabert", "jina_embeddings_v3", "gte"}
)
"""Bidirectional by architecture: nothing to say about attention."""

OFFSET_POSITIONS = frozenset(
    {"roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod", "camembert", "data2vec-text", "mpnet"}
)
"""Position ids start at padding_idx + 1, so so many of max_position_embeddings are never used."""

_DEFAULT_PADDING = 1
"""padding_idx where config.json has no pad_token_id; MPNet has this one whatever it says (transformers 5)."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model, resolved."""

    files: ModelFiles
    adapter: ModelFiles | None
    adapters: tuple[str, ...]
    """Adapters that tasks choose by name; empty for a plain model or one merged adapter."""
    catalogue_id: str | None
    model_type: str
    hidden_size: int
    instruction_style: InstructionStyle
    query_template: str
    query_template_plain: str | None
    document_template: str
    document_template_plain: str | None
    symmetric_template: str | None
    labels: tuple[str, ...]
    default_label: str | None
    pooling: tuple[str, ...]
    exclude_instruction: bool
    strip_text: bool
    lowercase: bool
    append_eos: bool | None
    bidirectional: bool | None
    after_pooling: tuple[Dense | Normalize, ...]
    matryoshka_dims: tuple[int, ...] | None
    layer_norm_before_truncation: bool
    max_length: int
    forbidden_dtypes: tuple[str, ...]
    trained_on_instructions: bool | None
    """What the catalogue says, whatever the overrides make of it."""
    origins: Mapping[str, str]
    """Field -> the layer that decided it."""

    @property
    def dimension(self) -> int:
        """Width of the vectors before any truncation."""
        dense = [module for module in self.after_pooling if isinstance(module, Dense)]
        return dense[-1].out_features if dense else self.hidden_size * len(self.pooling)


def resolve(config: ModelConfig, *, weights: bool = False) -> ModelSpec:
    """Finds the model's files and resolves every field.

    Args:
        config: The model as configured.
        weights: Whether the weights must be there too.

    Raises:
        ConfigError: no such model, an invalid override, a field no layer knows, files that need remote code.
        TransientError: the hub does not answer and nothing is cached.
    """
    check_overrides(config)
    files = find_model(config, weights=weights)
    adapter = find_adapter(config, weights=weights)
    entry = catalogue_entry(config)
    layers = _Layers(config, files, entry, read_sentence_files(files))
    model_config = files.read_json("config.json")
    if model_config is None:
        raise ConfigError(f"{files.name}: {files.folder} has no config.json; expected a Hugging Face model folder")
    style = layers.style()
    templates = layers.templates(style)
    spec = ModelSpec(
        files=files,
        adapter=adapter,
        adapters=tuple(adapter_folders(adapter)) if adapter and not adapter.read_json("adapter_config.json") else (),
        catalogue_id=entry.id if entry else None,
        model_type=str(model_config.get("model_type", "")),
        hidden_size=_hidden_size(files, model_config),
        instruction_style=style,
        labels=tuple(layers.first("labels", (), "overrides", "catalogue", "prompts")),
        default_label=layers.first("default_label", None, "overrides", "catalogue"),
        pooling=layers.pooling(),
        exclude_instruction=bool(layers.first("exclude_instruction", False, "overrides", "catalogue", "files")),
        strip_text=bool(layers.first("strip_text", False, "overrides", "catalogue")),
        lowercase=layers.sentence.lowercase,
        append_eos=layers.first("append_eos", None, "overrides", "catalogue"),
        bidirectional=layers.first("bidirectional", None, "overrides", "catalogue"),
        after_pooling=layers.sentence.after_pooling,
        matryoshka_dims=_tuple_or_none(layers.first("matryoshka_dims", None, "overrides", "catalogue")),
        layer_norm_before_truncation=bool(
            layers.first("layer_norm_before_truncation", False, "overrides", "catalogue")
        ),
        max_length=_max_length(layers, config, model_config),
        forbidden_dtypes=tuple(layers.first("forbidden_dtypes", (), "overrides", "catalogue")),
        trained_on_instructions=None if entry is None else entry.instruction_style in FREE_STYLES,
        origins=layers.origins,
        **templates,
    )
    _check_code(spec, model_config, layers)
    return _with_adapter_labels(_checked_dense(spec))


class _Layers:
    """The layers of one model, asked field by field."""

    def __init__(
        self, config: ModelConfig, files: ModelFiles, entry: CatalogueEntry | None, sentence: SentenceFiles
    ) -> None:
        self.files = files
        self.sentence = sentence
        self.origins: dict[str, str] = {}
        self._values: dict[str, Mapping[str, Any]] = {
            "overrides": config.overrides,
            "files": {
                "pooling": sentence.pooling,
                "exclude_instruction": sentence.exclude_instruction,
                "max_length": sentence.max_length,
            },
            "catalogue": {f.name: getattr(entry, f.name) for f in fields(CatalogueEntry)} if entry else {},
            "prompts": derive_templates(sentence.prompts),
        }

    def first(self, name: str, default: Any, *layers: str) -> Any:
        """The value of the first layer that has one."""
        for layer in layers:
            value = self._values[layer].get(name)
            if value is not None:
                self.origins[name] = layer
                return value
        self.origins[name] = "default"
        return default

    def unknown(self, name: str, expected: str) -> ConfigError:
        return ConfigError(
            f"{self.files.name}: {name} is in neither the catalogue nor the model's files. Give it in "
            f"`overrides: {{{name}: …}}` ({expected}), or name a model of the same kind with `overrides: {{like: …}}`"
        )

    def style(self) -> InstructionStyle:
        style = self.first("instruction_style", None, "overrides", "catalogue", "prompts")
        if style is None:
            raise self.unknown("instruction_style", f"one of {', '.join(STYLES)}")
        if style not in STYLES:
            raise ConfigError(
                f"{self.files.name}: overrides.instruction_style is {style!r}; expected one of {', '.join(STYLES)}."
                f"{nearest(str(style), STYLES)}"
            )
        found: InstructionStyle = style
        return found

    def templates(self, style: InstructionStyle) -> dict[str, Any]:
        """All templates. Where a user overrides the style, the catalogue's templates of another style say nothing."""
        layers = ["overrides", "catalogue", "prompts"]
        if self.origins["instruction_style"] == "overrides" and (
            self._values["catalogue"].get("instruction_style") != style
        ):
            layers = (
                ["overrides", "prompts"] if self._values["prompts"].get("instruction_style") == style else layers[:1]
            )
        default = "{text}" if style in {"none", "adapter"} else None
        query = self.first("query_template", default, *layers)
        if query is None:
            raise self.unknown("query_template", "with {text}, and {instruction} where the model takes one")
        _check_template(self.files.name, "query_template", query, instruction=style in FREE_STYLES | {"task_label"})
        plain_default = {"task_label": None, "question_suffix": None, "free_form": "{text}"}.get(style, query)
        document = self.first("document_template", "{text}", *layers)
        values = {
            "query_template": query,
            "query_template_plain": self.first("query_template_plain", plain_default, *layers),
            "document_template": document,
            "document_template_plain": self.first(
                "document_template_plain", plain_default if "{instruction}" in document else document, *layers
            ),
            "symmetric_template": self.first("symmetric_template", None, *layers),
        }
        for name, value in values.items():
            if value is not None:
                _check_template(self.files.name, name, value, instruction=False)
        return values

    def pooling(self) -> tuple[str, ...]:
        pooling = self.first("pooling", None, "overrides", "files", "catalogue")
        if pooling is None:
            raise self.unknown("pooling", f"one or a list of {', '.join(POOLINGS)}")
        modes = (pooling,) if isinstance(pooling, str) else tuple(pooling)
        for mode in modes:
            if mode not in POOLINGS:
                raise ConfigError(
                    f"{self.files.name}: pooling {mode!r} is not supported; supported: {', '.join(POOLINGS)}."
                    f"{nearest(str(mode), POOLINGS)}"
                )
        return modes


def _hidden_size(files: ModelFiles, config: Mapping[str, Any]) -> int:
    for place in (config, config.get("text_config") or {}):
        for key in ("hidden_size", "d_model", "n_embd", "dim"):
            if isinstance(place.get(key), int):
                return int(place[key])
    raise ConfigError(f"{files.name}: config.json names no hidden_size")


def _max_length(layers: _Layers, config: ModelConfig, model_config: Mapping[str, Any]) -> int:
    """Longest prompt in tokens. Raises ConfigError when more is asked than the model has positions for."""
    positions = _positions(model_config)
    tokenizer_length = (layers.files.read_json("tokenizer_config.json") or {}).get("model_max_length")
    known = layers.first("max_length", None, "overrides", "files", "catalogue")
    if known is None and isinstance(tokenizer_length, int | float) and tokenizer_length < 10**9:
        known, layers.origins["max_length"] = int(tokenizer_length), "tokenizer"
    if known is None and positions is not None:
        known, layers.origins["max_length"] = positions, "config.json"
    if config.max_length is not None:
        if positions is not None and config.max_length > positions:
            raise ConfigError(
                f"{layers.files.name}: max_length is {config.max_length}, but the model has positions for {positions}"
            )
        layers.origins["max_length"] = "max_length"
        return config.max_length
    if known is None:
        raise layers.unknown("max_length", "tokens of a whole prompt")
    return int(known) if positions is None else min(int(known), positions)


def _positions(model_config: Mapping[str, Any]) -> int | None:
    text_config = model_config.get("text_config") or {}
    positions = model_config.get("max_position_embeddings") or text_config.get("max_position_embeddings")
    if not isinstance(positions, int) or model_config.get("model_type") in {"t5", "mt5", "umt5"}:
        return None
    model_type, padding = model_config.get("model_type"), model_config.get("pad_token_id")
    if model_type not in OFFSET_POSITIONS:
        return positions
    if model_type == "mpnet" or not isinstance(padding, int):
        padding = _DEFAULT_PADDING
    return positions - padding - 1


def _check_template(name: str, field: str, template: str, *, instruction: bool) -> None:
    wrong = template.count("{text}") != 1 or template.count("{instruction}") > 1
    if wrong or (instruction and "{instruction}" not in template):
        needs = "{text} and {instruction}, each once" if instruction else "{text} once, and {instruction} at most once"
        raise ConfigError(f"{name}: {field} is {template!r}; expected {needs}")


def _check_code(spec: ModelSpec, model_config: Mapping[str, Any], layers: _Layers) -> None:
    needs = layers.first("remote_code", None, "overrides", "catalogue")
    if needs or (needs is None and "auto_map" in model_config):
        raise ConfigError(
            f"{spec.files.name}: needs code from its own repository (auto_map), which is never run. Where the native "
            f"class {spec.model_type!r} computes the same, say so with `overrides: {{remote_code: false, "
            "bidirectional: true or false}`; else choose another model"
        )
    decoder = spec.model_type not in ENCODER_TYPES
    if "auto_map" in model_config and decoder and spec.bidirectional is None:
        raise layers.unknown("bidirectional", "true or false")


def _checked_dense(spec: ModelSpec) -> ModelSpec:
    width = spec.hidden_size * len(spec.pooling)
    for module in spec.after_pooling:
        if isinstance(module, Dense):
            if module.in_features != width:
                raise ConfigError(
                    f"{spec.files.name}: {module.path} takes {module.in_features} values, but {width} come in"
                )
            width = module.out_features
    return spec


def _with_adapter_labels(spec: ModelSpec) -> ModelSpec:
    """Adapters by name: the folder says which names there are, and a task's instruction chooses one."""
    if spec.adapters and spec.instruction_style == "adapter":
        return replace(spec, labels=spec.adapters)
    if spec.adapters:
        return replace(
            spec,
            labels=spec.adapters,
            instruction_style="adapter",
            query_template=spec.query_template_plain or "{text}",
            document_template=spec.document_template_plain or "{text}",
        )
    if spec.instruction_style == "adapter":
        known = f" ({', '.join(spec.labels)})" if spec.labels else ""
        raise ConfigError(
            f"{spec.files.name}: chooses a LoRA adapter by task, so `adapter` must name a folder with one sub-folder "
            f"per adapter{known}"
        )
    return spec


def _tuple_or_none(value: Any) -> tuple[int, ...] | None:
    return None if value is None else tuple(value)
