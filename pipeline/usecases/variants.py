"""Tasks under other instructions than their own: controls, other wordings, and queries that bring one along."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from pipeline.binding import Task
from pipeline.config.load import ConfigTree
from pipeline.context import Context
from pipeline.engine.entry import instruction_form
from pipeline.quality.evaluation import PromptKind
from pipeline.quality.paraphrases import GENERIC, NONSENSE

_OWN = ("collection", "replaces")
"""What a task does not share with its variants."""

_CONTROLS: Mapping[PromptKind, tuple[str, str | None]] = {
    PromptKind.NO_INSTRUCTION: ("no instruction", None),
    PromptKind.NONSENSE: ("nonsense", NONSENSE),
    PromptKind.GENERIC: ("generic", GENERIC),
}


@dataclass(frozen=True, slots=True)
class Variant:
    """One more way to embed the texts of some tasks."""

    name: str
    """Of a task of the configuration that `with_variants` returns."""
    title: str
    kind: PromptKind
    """TASK for another wording of the task's own instruction."""
    tasks: tuple[str, ...]
    changes: Mapping[str, Any]
    """Keys of the first task that are replaced; None takes one away."""


class Variants:
    """Gathers variants and names them. Names do not meet those of the configuration."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._found: list[Variant] = []

    def add_controls(self, tasks: Sequence[Task]) -> list[Variant]:
        """Returns the controls of tasks whose instruction is in free words; tasks of one model and size share them."""
        groups: dict[tuple[Any, ...], list[str]] = {}
        for task in tasks:
            config = task.config
            is_free = instruction_form(self._context.config.models[config.model]).is_free
            if is_free and config.instruction is not None and config.mode == "symmetric":
                groups.setdefault((config.model, task.dimension, config.max_tokens), []).append(task.name)
        return [
            self._add(
                title if len(groups) == 1 else f"{title} ({', '.join(names)})",
                kind,
                names,
                {"instruction": instruction, "head": None},
            )
            for names in groups.values()
            for kind, (title, instruction) in _CONTROLS.items()
        ]

    def add_wordings(self, task: str, wordings: Sequence[str]) -> list[Variant]:
        """Returns a task under other wordings of its instruction."""
        return [self._add(words, PromptKind.TASK, [task], {"instruction": words}) for words in wordings]

    def add_query_instruction(self, task: str, instruction: str) -> Variant:
        """Returns a retrieval task whose queries bring their own instruction."""
        return self._add(instruction, PromptKind.TASK, [task], {"query_instruction": instruction})

    def context(self) -> Context:
        """Returns the configuration with the variants beside its tasks, not loaded yet."""
        source = self._context.source
        tasks: dict[str, Any] = dict(source.tree["tasks"])
        for variant in self._found:
            settings = {name: value for name, value in tasks[variant.tasks[0]].items() if name not in _OWN}
            settings |= variant.changes
            tasks[variant.name] = {name: value for name, value in settings.items() if value is not None}
        models = {name: self._with_plain_form(name, model) for name, model in source.tree["models"].items()}
        return Context(ConfigTree({**source.tree, "tasks": tasks, "models": models}, source.origin))

    def _add(self, title: str, kind: PromptKind, tasks: Sequence[str], changes: Mapping[str, Any]) -> Variant:
        taken = self._context.config.tasks.keys() | {found.name for found in self._found}
        name = next(name for number in count() if (name := f"variant-{number}") not in taken)
        found = Variant(name, title, kind, tuple(tasks), changes)
        self._found.append(found)
        return found

    def _with_plain_form(self, name: str, model: Mapping[str, Any]) -> Mapping[str, Any]:
        """A model that always wants an instruction sees the text alone where the control has none."""
        used = {task for variant in self._found if variant.kind is PromptKind.NO_INSTRUCTION for task in variant.tasks}
        config = self._context.config
        if not any(config.tasks[task].model == name for task in used):
            return model
        if instruction_form(config.models[name]).has_plain_form:
            return model
        return {**model, "overrides": {**model.get("overrides", {}), "query_template_plain": "{text}"}}
