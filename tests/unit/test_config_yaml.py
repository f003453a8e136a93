"""What a file may look like: safe YAML, nothing read as something else, variables from the environment."""

from pathlib import Path

import pytest

from pipeline.config.load import load_config, read_tree
from pipeline.errors import ConfigError
from tests.config_trees import CONFIGS, parsed

NULL = (CONFIGS / "null.yaml").read_text(encoding="utf-8")


@pytest.fixture
def write(tmp_path: Path) -> "Write":
    return Write(tmp_path / "test.yaml")


class Write:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, content: str | bytes) -> Path:
        self.path.write_bytes(content.encode() if isinstance(content, str) else content)
        return self.path

    def refusal(self, content: str | bytes, environ: dict[str, str] | None = None) -> str:
        with pytest.raises(ConfigError) as caught:
            load_config(self(content), environ=environ or {})
        message = str(caught.value)
        assert message.startswith(str(self.path))
        return message


def test_a_file_is_read_as_it_stands(write: Write) -> None:
    config = load_config(write(NULL), environ={})
    assert config.source.topics["tickets"].text == "{title}\n\n{body}"


def test_a_byte_order_mark_is_no_fault(write: Write) -> None:
    assert load_config(write(b"\xef\xbb\xbf" + NULL.encode()), environ={}).pipeline == "null"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read \(No such file or directory\)"):
        load_config(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected a mapping with the keys pipeline, source"),
        ("- a\n- b\n", "expected a mapping"),
        ("just text", "expected a mapping"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        ("a: [1, 2", "line 1: is not valid YAML"),
        ("a: 1\n b: 2\n", "line 2: is not valid YAML"),
        ("a: 1\n---\nb: 2\n", "is not valid YAML (but found another document)"),
        ("a: \x07", "holds characters that are not text"),
        ("a: " + "[" * 5_000 + "]" * 5_000, "is nested too deeply"),
    ],
)
def test_what_is_no_mapping_is_refused(write: Write, content: str | bytes, message: str) -> None:
    assert message in write.refusal(content)


def test_a_key_that_appears_twice_is_refused_with_its_line(write: Write) -> None:
    assert "line 3: key 'b' appears twice" in write.refusal("a:\n  b: 1\n  b: 2\n")


def test_anchors_are_refused_so_that_none_can_multiply(write: Write) -> None:
    bomb = "a: &a [x, x]\nb: &b [*a, *a]\n"
    assert "line 2: YAML anchors and aliases are not supported" in write.refusal(bomb)
    assert "anchors and aliases" in write.refusal("a: &a {x: 1}\nb:\n  <<: *a\n")


@pytest.mark.parametrize(
    "tag",
    ["!!python/object:os.system", "!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!custom x"],
)
def test_tags_construct_nothing(write: Write, tag: str) -> None:
    assert "is not valid YAML (could not determine a constructor" in write.refusal(f"a: {tag}\n")


@pytest.mark.parametrize("word", ["no", "Yes", "on", "OFF"])
def test_words_that_yaml_takes_for_truth_values_must_be_decided(write: Write, word: str) -> None:
    assert f"line 2: write true or false, or quote the word: '{word}'" in write.refusal(f"a: 1\nb: {word}\n")


def test_a_key_that_yaml_takes_for_a_truth_value_is_refused(write: Write) -> None:
    assert "line 1: write true or false, or quote the word: 'on'" in write.refusal("on: 1\n")
    assert "line 1: key 1 is not a string; quote it" in write.refusal("1: x\n")


@pytest.mark.parametrize("number", ["010", "1:30", "-017"])
def test_numbers_that_are_not_decimal_are_refused(write: Write, number: str) -> None:
    assert f"line 1: {number} is not read as a decimal number" in write.refusal(f"a: {number}\n")


def test_an_unquoted_date_is_refused(write: Write) -> None:
    assert "line 1: 2026-01-01 would be read as a date; quote it" in write.refusal("a: 2026-01-01\n")


def test_quoted_words_numbers_and_dates_are_texts(write: Write) -> None:
    tree = read_tree(write('a: "no"\nb: "010"\nc: "2026-01-01"\nd: true\ne: 0\nf: -3\n'))
    assert tree == {"a": "no", "b": "010", "c": "2026-01-01", "d": True, "e": 0, "f": -3}


def test_an_exponent_without_a_point_is_a_text_and_refused_where_a_number_belongs(write: Write) -> None:
    message = write.refusal(NULL + "limits:\n  max_batch_records: 1e3\n")
    assert "limits.max_batch_records: expected a whole number, found a string; write it without quotes" in message


def test_variables_come_from_the_environment(write: Write) -> None:
    content = NULL.replace("group_id: refract-null", "group_id: ${TEAM}-${STAGE:-test}")
    assert load_config(write(content), environ={"TEAM": "a"}).source.group_id == "a-test"
    assert load_config(write(content), environ={"TEAM": "a", "STAGE": "live"}).source.group_id == "a-live"


def test_every_missing_variable_is_named_with_its_key(write: Write) -> None:
    content = NULL.replace("group_id: refract-null", "group_id: ${TEAM}").replace("var/null", "${DIR}")
    message = write.refusal(content)
    assert "source.group_id: the environment variable TEAM is not set" in message
    assert "store.path: the environment variable DIR is not set" in message


def test_an_empty_default_is_a_value(write: Write) -> None:
    content = NULL.replace("refract-null", "x${SUFFIX:-}")
    assert load_config(write(content), environ={}).source.group_id == "x"


def test_a_variables_value_is_not_expanded_again(write: Write) -> None:
    content = NULL.replace("refract-null", "${A}")
    assert load_config(write(content), environ={"A": "${B}", "B": "no"}).source.group_id == "${B}"


def test_an_instruction_keeps_its_braces_and_dollars(write: Write) -> None:
    content = NULL.replace("How urgent is this support ticket", '"{text} $HOME {0} %s $5"')
    assert load_config(write(content), environ={}).tasks["urgency"].instruction == "{text} $HOME {0} %s $5"


def test_a_default_also_stands_in_for_a_variable_that_is_set_and_empty() -> None:
    config = parsed({"SERVERS": ""}, source__bootstrap_servers=["${SERVERS:-localhost:9092}"])
    assert config.source.bootstrap_servers == ["localhost:9092"]
