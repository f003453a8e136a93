"""What the HTTP API takes and gives. Strict: a number is not a string, and unknown fields are refused."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema, model_validator

from pipeline.filters import BOUNDS, IS_NULL, WORDS
from pipeline.searcher import Hit

TaskName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,62}$")]

MAX_FILTERS = 16
MAX_ANY_OF = 128
MAX_VALUE = 1_024
MAX_INPUTS = 2_048
"""As many as OpenAI's API takes."""


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _texts(value: Any) -> Any:
    """One message for both forms of `input`."""
    texts = value if isinstance(value, list) else [value]
    if not texts or len(texts) > MAX_INPUTS or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"expected a text, or a list of 1 to {MAX_INPUTS:,} texts")
    return value


def _key(value: Any) -> Any:
    if value is not None and (isinstance(value, bool) or not isinstance(value, (str, int))):
        raise ValueError("expected a text or an integer")
    return value


def _filter_value(value: Any) -> Any:
    """Bounds the size; what a field can be asked is checked where its type is known."""
    values = value if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else [value]
    if len(values) > MAX_ANY_OF:
        raise ValueError(f"at most {MAX_ANY_OF} values")
    for each in values:
        if not isinstance(each, (str, int, float, bool)):
            raise ValueError("expected a text, a number, true or false, a list of them, or a mapping")  # noqa: TRY004 - pydantic's protocol
        if isinstance(each, str) and len(each) > MAX_VALUE:
            raise ValueError(f"a text has at most {MAX_VALUE:,} characters")
    return value


FilterValue = Annotated[
    Any,
    BeforeValidator(_filter_value),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": ["string", "number", "boolean"]},
                {"type": "array", "items": {"type": ["string", "integer"]}, "minItems": 1, "maxItems": MAX_ANY_OF},
                {
                    "type": "object",
                    "properties": {
                        **{bound: {"type": ["number", "string"]} for bound in BOUNDS},
                        WORDS: {"type": "string"},
                        IS_NULL: {"type": "boolean"},
                    },
                    "additionalProperties": False,
                    "minProperties": 1,
                },
            ]
        }
    ),
]


class SearchRequest(_Request):
    """One search: by text, or by the id of a stored record."""

    task: TaskName = Field(description="Which task's collection to search, with that task's own prompt.")
    text: str | None = Field(None, description="What to look for.")
    id: Annotated[str | int | None, BeforeValidator(_key)] = Field(
        None, description="Or: a record's key, to find its neighbours."
    )
    limit: int = Field(10, ge=1, description="How many hits.")
    filter: dict[str, FilterValue] = Field(
        default_factory=dict,
        max_length=MAX_FILTERS,
        description="Payload field -> a value to equal, a list of values to match any of, {gt, gte, lt, lte} of "
        "numbers or times, {text: words to find} or {is_null: true}. What a field takes depends on its type.",
    )

    @model_validator(mode="after")
    def _text_or_id(self) -> Self:
        if (self.text is None) == (self.id is None):
            raise ValueError("give either text or id")
        return self


class SearchResponse(BaseModel):
    """Hits by falling score."""

    task: str
    collection: str
    hits: list[Hit]


class EmbeddingsRequest(_Request):
    """OpenAI's embeddings request, with a task as the model."""

    model: TaskName = Field(description="A task's name.")
    input: Annotated[str | list[str], BeforeValidator(_texts)] = Field(description="Text or texts.")
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
