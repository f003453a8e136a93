"""The tasks of a configuration, and what the model sees for each of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, cast

from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.config.pipeline import Config
from pipeline.engine.entry import load_tokenizer


class Prompter(Protocol):
    """Shows the prompts of one model's tasks."""

    def show(self, prompt: str, text: str) -> tuple[str, list[int]]:
        """Returns what the model sees for a text under the named prompt, and its token ids."""


@dataclass(frozen=True, slots=True)
class ListedTask:
    """A task as the configuration states it."""

    task: str
    mode: str
    model: str
    """Its name in the configuration, and the model itself."""
    collection: str
    """The alias that readers use."""
    dimension: int | None
    """None for the model's own."""
    topics: str
    """Names, separated by commas."""
    instruction: str | None
    query_instruction: str | None


@dataclass(frozen=True, slots=True)
class ShownPrompt:
    """What a model sees for a text."""

    task: str
    side: str
    """record, query, or both."""
    prompt: str
    token_ids: list[int]


def list_tasks(config: Config) -> list[ListedTask]:
    """Returns the tasks in the order of the configuration."""
    return [
        ListedTask(
            task=name,
            mode=task.mode,
            model=f"{task.model} ({config.models[task.model].model})",
            collection=task.collection or name,
            dimension=task.dimension,
            topics=", ".join(topic for topic, settings in config.source.topics.items() if name in settings.tasks),
            instruction=task.instruction,
            query_instruction=task.query_instruction,
        )
        for name, task in config.tasks.items()
    ]


def show_prompts(config: Config, text: str) -> list[ShownPrompt]:
    """Returns each task's prompt for a text: for records and, where it is another one, for queries.

    Raises ConfigError, TransientError.
    """
    shown = []
    for model_name, model in config.models.items():
        tasks = config.tasks_of(model_name)
        if not tasks:
            continue
        prompter = load_prompter(model, tasks)
        for name, task in tasks.items():
            sides = (
                {"record": name, "query": f"{name}:query"} if task.mode == "retrieval" else {"record and query": name}
            )
            for side, prompt_name in sides.items():
                prompt, token_ids = prompter.show(prompt_name, text)
                shown.append(ShownPrompt(name, side, prompt, token_ids))
    return shown


def load_prompter(model: ModelConfig, tasks: Mapping[str, TaskConfig]) -> Prompter:
    """Returns what shows the prompts of a model's tasks. Raises ConfigError, TransientError."""
    return cast("Prompter", load_tokenizer(model, tasks))  # every tokenizer of the engine shows its prompts
