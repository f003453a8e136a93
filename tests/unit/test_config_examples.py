"""Every file in configs/ works, and its models see what its comments say."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.binding import bind_tasks
from pipeline.config.advice import advice
from pipeline.config.load import load_config
from pipeline.config.model import ModelConfig, TaskConfig
from pipeline.config.pipeline import Config
from pipeline.engine.entry import check_tasks, identify
from pipeline.errors import ConfigError
from pipeline.usecases.tasks import load_prompter
from tests.config_trees import CONFIGS
from tests.unit.engine import tiny_models

ENVIRON = {"KAFKA_USERNAME": "u", "KAFKA_PASSWORD": "p", "QDRANT_API_KEY": "q", "REFRACT_API_KEY": "r"}
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
LOCAL = ["avro", "demo", "laptop", "null", "stack"]
FAMILIES = {"cluster": "qwen3", "e5": "bert-e5", "instructor": "t5-instructor", "qwen3": "qwen3"}
"""Of the files whose model comes from a hub: a tiny model that is built like it."""


def load(name: str) -> Config:
    return load_config(CONFIGS / f"{name}.yaml", environ=ENVIRON)


def tasks_of(config: Config) -> dict[str, TaskConfig]:
    """Without sizes: a tiny model has neither the width nor the length of the real one."""
    return {
        name: task.model_copy(update={"dimension": None, "max_tokens": None}) for name, task in config.tasks.items()
    }


def tiny(config: Config, name: str, folder: Path) -> ModelConfig:
    """A model of the same family on this disk, with the catalogue's facts about the one the file names."""
    [model] = config.models.values()
    tiny_models.build(FAMILIES[name], folder)
    overrides: Mapping[str, Any] = {"like": model.model, **model.overrides}
    return model.model_copy(update={"model": str(folder), "revision": None, "max_length": 120, "overrides": overrides})


def test_every_example_is_covered_here() -> None:
    assert sorted([*LOCAL, *FAMILIES]) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_valid_and_needs_no_advice_but_on_pins(name: str) -> None:
    config = load(name)
    lines = advice(config, ray_token=False)
    assert [line for line in lines if ".revision: " not in line] == []


@pytest.mark.parametrize("name", NAMES)
def test_examples_read_tickets_the_same_way(name: str) -> None:
    topic = load(name).source.topics["tickets"]
    assert (topic.key, topic.version, topic.version_type) == ("id", "updated_at", "time")
    assert topic.placeholders == ("title", "body")
    assert topic.payload_fields.keys() >= {"title", "issue", "urgency", "language"}
    assert topic.delete_when is not None
    assert (topic.delete_when.field, topic.delete_when.equals) == ("status", "deleted")


@pytest.mark.parametrize("name", NAMES)
def test_an_example_says_what_it_is_before_anything_else(name: str) -> None:
    assert (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("name", LOCAL)
def test_an_example_with_a_local_model_can_do_its_tasks(name: str) -> None:
    config = load(name)
    for model_name, model in config.models.items():
        check_tasks(model_name, model, config.tasks)
    bound = bind_tasks(config, {model_name: identify(model) for model_name, model in config.models.items()})
    assert {task.dimension for task in bound.values()} == {384}
    assert len({task.collection for task in bound.values()}) == len(config.tasks)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_an_example_with_a_hub_model_fits_its_family(name: str, tmp_path: Path) -> None:
    config = load(name)
    check_tasks("model", tiny(config, name, tmp_path), tasks_of(config))


@pytest.mark.parametrize(
    ("name", "prompt", "shown"),
    [
        ("qwen3", "duplicates", "Query:T"),
        ("qwen3", "topic", "Instruct: Identify the topic of the support ticket"),
        ("cluster", "urgency", "Instruct: Classify the support ticket by how urgently it needs an answer\nQuery:T"),
        ("e5", "find", "passage: T"),
        ("e5", "find:query", "query: T"),
        ("instructor", "urgency", "Represent the support ticket for classifying its urgency: T"),
        ("instructor", "find:query", "Represent the question for retrieving related support tickets: T"),
    ],
)
def test_the_model_sees_what_the_example_says(name: str, prompt: str, shown: str, tmp_path: Path) -> None:
    config = load(name)
    text, token_ids = load_prompter(tiny(config, name, tmp_path), tasks_of(config)).show(prompt, "T")
    assert shown in text
    assert token_ids


def test_the_demo_makes_the_instruction_part_of_the_text() -> None:
    config = load("demo")
    shown = load_prompter(config.models["minilm"], config.tasks)
    assert shown.show("urgency", "T")[0] == "How urgent is this support ticket: T"


def test_an_instruction_in_the_e5_example_is_refused_with_models_that_take_one(tmp_path: Path) -> None:
    config = load("e5")
    task = config.tasks["find"].model_copy(update={"instruction": "How urgent is this"})
    with pytest.raises(ConfigError, match="Models that take an instruction"):
        check_tasks("e5", tiny(config, "e5", tmp_path), {"find": task})


def test_the_cluster_example_starts_only_with_its_secrets() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(CONFIGS / "cluster.yaml", environ={})
    assert [line.split(" variable ")[1].split()[0] for line in str(caught.value).splitlines()] == list(ENVIRON)


def test_brokers_of_the_local_examples_can_be_named_by_the_environment() -> None:
    environ = {**os.environ, **ENVIRON, "BOOTSTRAP_SERVERS": "kafka:1234"}
    for name in {*NAMES} - {"cluster"}:
        assert load_config(CONFIGS / f"{name}.yaml", environ=environ).source.bootstrap_servers == ["kafka:1234"]
