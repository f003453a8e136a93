"""What the HTTP API takes and gives. Strict: a number is not a string, and unknown fields are refused."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from pipeline.search import Hit

TaskName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,62}$")]
Scalar = Annotated[str, StringConstraints(max_length=1024)] | int | float | bool

MAX_FILTERS = 16
MAX_ANY_OF = 128
MAX_INPUTS = 2_048
"""As many as OpenAI's API takes."""

AnyOf = Annotated[list[Scalar], Field(min_length=1, max_length=MAX_ANY_OF)]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Range(_Request):
    """Bounds of a number."""

    gt: float | None = None
    gte: float | None = None
    lt: float | None = None
    lte: float | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.gt is self.gte is self.lt is self.lte is None:
            raise ValueError("a range needs gt, gte, lt or lte")
        return self


class SearchRequest(_Request):
    """One search: by text, or by the id of a stored record."""

    task: TaskName = Field(description="Which task's collection to search, with that task's own prompt.")
    text: str | None = Field(None, description="What to look for.")
    id: str | int | None = Field(None, description="Or: a record's key, to find its neighbours.")
    limit: int = Field(10, ge=1, description="How many hits.")
    filter: dict[str, Scalar | AnyOf | Annotated[Range, Field(strict=False)]] = Field(
        default_factory=dict,
        max_length=MAX_FILTERS,
        description="Payload field -> a value to equal, a list of values to match any of, or {gt, gte, lt, lte}.",
    )

    @model_validator(mode="after")
    def _text_or_id(self) -> Self:
        if (self.text is None) == (self.id is None):
            raise ValueError("give either text or id")
        return self

    @property
    def filters(self) -> dict[str, Any]:
        """The filter as `pipeline.filters.parse_filters` takes it."""
        return {
            name: condition.model_dump(exclude_none=True) if isinstance(condition, Range) else condition
            for name, condition in self.filter.items()
        }


class SearchResponse(BaseModel):
    """Hits by falling score."""

    task: str
    collection: str
    hits: list[Hit]


class EmbeddingsRequest(_Request):
    """OpenAI's embeddings request, with a task as the model."""

    model: TaskName = Field(description="A task's name.")
    input: str | Annotated[list[str], Field(min_length=1, max_length=MAX_INPUTS)] = Field(description="Text or texts.")
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="base64: little-endian float32. Absent or null: float, as OpenAI's clients send it."
    )
    input_type: Literal["query", "document"] = Field("query", description="Which side of a retrieval task.")
    dimensions: int | None = Field(None, description="Must equal the task's dimension if given.")
    user: str | None = Field(None, description="Accepted and ignored.")


class TaskResponse(BaseModel):
    """A task as clients see it."""

    name: str
    mode: str
    instruction: str | None
    query_instruction: str | None
    model: str
    collection: str
    dimension: int
    fingerprint: str
    topics: list[str]


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str
    message: str


class ErrorResponse(BaseModel):
    """The body of every answer that is not 2xx."""

    error: ErrorDetail
