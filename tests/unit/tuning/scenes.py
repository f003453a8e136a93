"""A tiny model, texts whose two labels are words of theirs, and everything a run needs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.quality.labels import Label, make_label
from pipeline.tuning.wordings import PLAIN, Wordings
from tests.unit.engine.tiny_models import build

FREE = {"instruction_style": "free_form", "query_template": "{instruction}: {text}", "exclude_instruction": True}
INSTRUCTIONS = {"urgency": "how urgent is the ticket", "topic": "what is the ticket about"}

_URGENCY = {"low": "can wait at some time", "high": "now at once the fire"}
_TOPIC = {"printer": "the printer on the second floor", "invoice": "the invoice is wrong", "server": "server room"}
_NOISE = ("again", "please", "since 2024", "does not answer", "it is", "on", "room", "is")


def tiny_config(folder: Path, family: str = "bert-max") -> ModelConfig:
    return ModelConfig(model=str(build(family, folder)), overrides=FREE, device="cpu", dtype="float32")


def crossed_texts(count: int, *, seed: int = 0) -> tuple[list[str], dict[str, Label]]:
    """Texts that name their urgency and their topic, every combination equally often."""
    random = np.random.default_rng(seed)
    texts, urgency, topic = [], [], []
    for number in range(count):
        urgency.append(list(_URGENCY)[number % 2])
        topic.append(list(_TOPIC)[number // 2 % 3])
        noise = " ".join(random.choice(_NOISE, 3))
        texts.append(f"{_TOPIC[topic[-1]]} {noise} {_URGENCY[urgency[-1]]} {number}")
    return texts, {"urgency": make_label("urgency", urgency), "topic": make_label("topic", topic)}


def prompts_of(wordings: Wordings) -> Mapping[str, TaskConfig]:
    tasks = {
        wordings.prompt(task, number): TaskConfig(model="m", instruction=text)
        for task, texts in wordings.by_task.items()
        for number, text in enumerate(texts)
    }
    return {**tasks, PLAIN: TaskConfig(model="m")}
