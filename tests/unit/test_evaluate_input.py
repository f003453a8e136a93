"""Labelled records as they come: newest states, equal texts, labels that are missing or are none."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.load import parse_config
from pipeline.errors import ConfigError, RefractError
from pipeline.usecases.labelled import Draw, LabelledInput, Material, read_labelled
from tests.unit.labelled_rows import config, rows, write


def read(tmp_path: Path, *inputs: str, columns: tuple[str, ...] = ("urgency", "issue"), **draw: Any) -> Material:
    loaded = parse_config(config(tmp_path), environ={}, origin="test.yaml")
    source = LabelledInput("tickets", inputs, columns)
    return read_labelled(loaded, source, Draw(**{"max_texts": 1_000, "seed": 0} | draw), lambda *_: None)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_any_file_that_the_backfill_reads_can_be_evaluated(tmp_path: Path, suffix: str) -> None:
    found = read(tmp_path, write(tmp_path / f"tickets{suffix}", rows()))
    row = found.keys.index("T-4")
    assert found.texts[row] == "ticket 4\n\nprinter is low"
    assert (found.labels["urgency"][row], found.labels["issue"][row]) == ("low", "printer")
    assert len(found.keys) == 60
    assert (found.rows.num_read, found.rows.num_texts, found.rows.is_whole) == (60, 60, True)


def test_labels_may_lie_deeper_and_need_not_be_stored(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [row | {"facts": {"tone": "calm"}} for row in rows()])
    assert set(read(tmp_path, path, columns=("facts.tone",)).labels["facts.tone"]) == {"calm"}


def test_the_newest_state_of_a_record_counts_and_deleted_ones_do_not(tmp_path: Path) -> None:
    content = rows(20)
    newer = {"updated_at": content[-1]["updated_at"] + 1}
    content = [content[3] | newer | {"urgency": "changed"}, *content, content[5] | newer | {"status": "deleted"}]
    found = read(tmp_path, write(tmp_path / "a.jsonl", content))
    labels = dict(zip(found.keys, found.labels["urgency"], strict=True))
    assert labels["T-3"] == "changed"
    assert len(labels) == 19
    assert "T-5" not in labels


def test_equal_texts_become_one_and_their_contradictions_are_counted(tmp_path: Path) -> None:
    content = rows(20)
    content += [content[0] | {"id": "copy", "urgency": "low"}, content[1] | {"id": "copy too"}]
    found = read(tmp_path, write(tmp_path / "a.jsonl", content))
    assert (found.rows.num_texts, found.rows.num_equal) == (20, 2)
    assert found.contradicted == {"urgency": 1, "issue": 0}
    assert found.places["copy"] == found.places["T-0"]


def test_rows_that_make_no_record_are_counted_and_blank_texts_among_them(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(
        path, [*rows(20), {"id": "x", "title": "", "body": "\n", "updated_at": 1}, {"id": "y", "title": "no version"}]
    )
    with path.open("a") as file:
        file.write("not json\n")
    found = read(tmp_path, str(path))
    assert (found.rows.num_read, found.rows.num_refused, found.rows.num_empty) == (23, 3, 1)


def test_labels_are_read_as_classes(tmp_path: Path) -> None:
    values = ["a", " a ", "", None, 1, 1.0, True]
    content = [row | {"urgency": value} for row, value in zip(rows(7), values, strict=True)]
    found = read(tmp_path, write(tmp_path / "a.jsonl", content), columns=("urgency",))
    assert Counter(found.labels["urgency"]) == {"a": 2, None: 2, "1": 2, "true": 1}


def test_numbers_with_fractions_are_no_label(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [row | {"urgency": 0.25} for row in rows()])
    with pytest.raises(ConfigError, match=r"label column 'urgency': found a number with a fraction") as refused:
        read(tmp_path, path)
    assert "0.25" not in str(refused.value)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_missing_label_column_is_told_with_the_nearest(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", rows())
    with pytest.raises(ConfigError, match=r"label column 'urgncy': no row of the input has it. Did you mean 'urgency'"):
        read(tmp_path, path, columns=("issue", "urgncy"))


def test_labels_in_folders_of_the_path_are_read(tmp_path: Path) -> None:
    for issue in ("email", "vpn"):
        (tmp_path / f"team={issue}").mkdir()
        content = [row for row in rows() if row["issue"] == issue]
        write(tmp_path / f"team={issue}" / "a.parquet", content)
    found = read(tmp_path, str(tmp_path), columns=("issue", "team"))
    assert found.labels["team"] == found.labels["issue"]


def test_nothing_to_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(RefractError, match=r"no row of the input makes a record \(1 rows\)"):
        read(tmp_path, write(tmp_path / "a.jsonl", [{"id": 1}]))


def test_a_sample_says_so_and_holds_the_wanted_keys(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", rows())
    found = read(tmp_path, path, max_texts=10, always=("T-7", "T-8"))
    assert (found.rows.num_texts, found.rows.is_whole) == (12, False)
    assert {"T-7", "T-8"} < set(found.keys)
    assert read(tmp_path, path, max_texts=10, seed=1).keys != read(tmp_path, path, max_texts=10).keys


def test_a_file_of_a_topic_without_a_key_is_refused(tmp_path: Path) -> None:
    settings = config(tmp_path)
    del settings["source"]["topics"]["tickets"]["key"]
    loaded = parse_config(settings, environ={}, origin="test.yaml")
    source = LabelledInput("tickets", [write(tmp_path / "a.jsonl", rows())], ["urgency"])
    with pytest.raises(ConfigError, match="name the key's field"):
        read_labelled(loaded, source, Draw(10, 0), lambda *_: None)


def test_taking_some_texts_keeps_places_and_counts_right(tmp_path: Path) -> None:
    found = read(tmp_path, write(tmp_path / "a.jsonl", rows(20))).take([3, 5])
    assert (len(found.texts), found.rows.num_texts, found.rows.num_refused) == (2, 2, 18)
    assert found.places == {found.keys[0]: 0, found.keys[1]: 1}
