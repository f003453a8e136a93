"""Models, and the tasks that ask them something."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.base import FilePath, Name, Section


class ModelConfig(Section):
    """One embedding model and the actors that run it."""

    model: str = Field(
        min_length=1,
        description="A hub id, a folder, `packaged:all-MiniLM-L6-v2` (from the minilm extra), or `null:<dimension>`: "
        "no model, but a unit vector from a hash of prompt and task, for tests and for measuring what is around the "
        "model.",
    )
    revision: str | None = Field(
        None, description="Commit of a hub model. Part of the fingerprint; pin it in production."
    )
    adapter: str | None = Field(None, description="A PEFT LoRA adapter on top: hub id or folder.")
    adapter_revision: str | None = Field(None, description="Commit of a hub adapter.")
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = Field(
        "auto",
        description="auto: the fastest the model and the machine allow, exact to rounding. int8: linear layers in 8 "
        "bits, on CPUs with VNNI; faster, but other vectors (another fingerprint): see `refract bench --dtype int8`.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA where the replica was given a GPU.")
    max_length: int | None = Field(
        None,
        ge=8,
        le=1_000_000,
        description="Tokens of a whole prompt. Raising it embeds more of a long text, at a cost that grows faster "
        "than the length. Absent: what the model was made for.",
    )
    max_batch_tokens: int | None = Field(
        None,
        ge=64,
        le=10_000_000,
        description="Tokens of one forward batch. Raising it costs memory, and pays until the device is compute "
        "bound. Absent: found by measuring at load.",
    )
    replicas: int = Field(
        1,
        ge=0,
        le=10_000,
        description="Embedder replicas at the start, and the fewest later. Raising it multiplies speed and memory; 0 "
        "lets an idle model cost nothing and makes the first record wait for a start.",
    )
    max_replicas: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="Above `replicas`: scaled up to this on queued work. Raising it catches up faster and takes more "
        "of the cluster.",
    )
    num_gpus: float = Field(
        0, ge=0, le=64, description="GPUs of one replica; a fraction shares one: 0.5 puts two replicas on a GPU."
    )
    num_cpus: float = Field(
        1, ge=0, le=1024, description="CPUs Ray reserves for one replica. Raising it puts fewer replicas on a machine."
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Threads of one replica on CPU. Raising it speeds up a batch until the physical cores are used. "
        "Absent: num_cpus, or all when that is below one.",
    )
    cache_rows: int = Field(
        0,
        ge=0,
        le=100_000_000,
        description="Embeddings of one replica kept by content, least recently used dropped first, so that equal "
        "texts of one task are computed once. Raising it finds older duplicates, at 4 bytes per dimension and about "
        "200 more each. 0: every text is computed.",
    )
    overrides: dict[str, Any] = Field(
        default_factory=dict,
        description="Catalogue fields to set by hand for a model the catalogue does not know, or to correct: pooling, "
        "query_template, …",
    )

    @field_validator("revision")
    @classmethod
    def _revision_is_a_pin(cls, value: str | None) -> str | None:
        if value in {"main", "master", "latest", ""}:
            raise ValueError("a branch name pins nothing; give the commit id")
        return value

    @model_validator(mode="after")
    def _scaling(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < max(self.replicas, 1):
            raise ValueError("max_replicas is below replicas")
        return self


class TaskConfig(Section):
    """One way of embedding a record: an instruction, and the collection that holds the result."""

    instruction: str | None = Field(
        None,
        max_length=8_000,
        description="What the model is asked, in the words its family wants; for label and prefix models the label. "
        "Absent: the model's plain form.",
    )
    query_instruction: str | None = Field(
        None,
        max_length=8_000,
        description="mode retrieval: the instruction of queries where it differs from `instruction`.",
    )
    mode: Literal["symmetric", "retrieval"] = Field(
        "symmetric",
        description="symmetric: the instruction on records and on queries (classification, clustering, similarity). "
        "retrieval: the model's query form on queries, its document form on records.",
    )
    model: Name = Field(description="Name of a model of this file.")
    collection: Name | None = Field(
        None, description="Qdrant collection (read through this alias). Absent: the task's name."
    )
    dimension: int | None = Field(
        None,
        ge=2,
        le=65_536,
        description="Matryoshka truncation: keeps the first so many values and normalises again. Raising it costs "
        "store memory in proportion. Absent: the model's own, or the head's.",
    )
    head: FilePath | None = Field(
        None,
        description="A linear map of this task's own behind the whole model: a folder with a config.json and a "
        "model.safetensors, in the format of sentence-transformers' `Dense`. Tasks with equal prompts share one pass "
        "through the model, whatever their heads and dimensions. Absent: the model's own vectors.",
    )
    max_tokens: int | None = Field(
        None,
        ge=8,
        le=1_000_000,
        description="Longest prompt of this task; the text is cut, never the instruction. Raising it embeds more of a "
        "long text and costs time. Absent: the model's max_length.",
    )

    @model_validator(mode="after")
    def _query_side(self) -> Self:
        if self.query_instruction is not None and self.mode == "symmetric":
            raise ValueError("query_instruction is for mode: retrieval; a symmetric task asks the same on both sides")
        return self
