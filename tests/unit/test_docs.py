"""README and docs are complete, point at what exists, and show nothing that no test runs."""

import re
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import cast

import orjson
import pytest

from pipeline.api.http_app import build_api
from pipeline.api.service import ApiService
from pipeline.config.describe import config_keys
from pipeline.errors import Reason
from pipeline.session import Session
from tests.config_trees import CONFIGS, ROOT, parsed
from tests.docs.generate import PARTS, REPORTS, metric_families, parts_of, renewed, verbs
from tests.docs.markdown import Block, anchors, blocks, links, pages, prose
from tests.docs.reader import check_yaml, compare_shapes

PAGES = pages()
BLOCKS = [block for page in PAGES for block in blocks(page)]
DOCS = ROOT / "docs"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
LANGUAGES = {"console", "python", "yaml", "json", "text"}
DIRECTIVES = {"", "tested by", "file", "onto", "stop the app"}
_PATH = re.compile(r"`((?:pipeline|actors|configs|infra|tests|docs)/[\w./-]*)((?:::\w+)*)`")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def place_of(block: Block) -> str:
    return block.place


def make_targets() -> list[str]:
    [phony] = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    return [target for target in phony.split() if target != "help"]


# Complete


def test_readme_can_be_read_in_three_minutes() -> None:
    assert len(read("README.md").splitlines()) <= 200


def test_readme_leads_to_every_page_of_docs() -> None:
    targets = {target.partition("#")[0] for target in links(ROOT / "README.md")}
    assert {name_of(page) for page in DOCS.glob("*.md")} <= targets


@pytest.mark.parametrize("verb", [name for name, _ in verbs()])
def test_every_verb_is_documented(verb: str) -> None:
    assert f"\n### refract {verb}\n" in read("docs/cli.md")


@pytest.mark.parametrize("key", [doc.key for doc in config_keys()])
def test_every_configuration_key_is_documented(key: str) -> None:
    assert f"| `{key}` |" in read("docs/configuration.md")


@pytest.mark.parametrize("name", [name for _, name, *_ in metric_families()])
def test_a_metric_is_named_by_the_rule_and_documented(name: str) -> None:
    assert re.fullmatch(r"refract_[a-z0-9_]+", name)
    assert f"| `{name}` |" in read("docs/metrics.md")


@pytest.mark.parametrize("target", make_targets())
def test_every_target_of_make_is_explained(target: str) -> None:
    assert f"| `make {target}" in read("CONTRIBUTING.md")


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_of_a_dead_letter_says_what_to_do(reason: Reason) -> None:
    assert f"| `{reason}` |" in read("docs/operating.md")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=name_of)
def test_every_example_configuration_is_named(path: Path) -> None:
    assert f"configs/{path.name}" in read("docs/configuration.md")


def test_every_route_of_the_api_is_documented() -> None:
    service = SimpleNamespace(config=parsed(), metrics=SimpleNamespace(requests=None))
    routes = build_api(cast("ApiService", service)).openapi()["paths"]
    page = read("docs/http-api.md")
    described = [f"`{method.upper()} {path}`" for path, methods in routes.items() for method in methods]
    assert [route for route in described if route not in page] == []
    assert len(described) == 7


def test_every_error_code_of_the_api_is_documented() -> None:
    sources = [read("pipeline/searcher.py"), *(path.read_text() for path in (ROOT / "pipeline/api").glob("*.py"))]
    found = re.findall(r'(?:QueryError\(\s*|failure\(\d+, |HTTPStatus\.\w+: )"(\w+)"', "\n".join(sources))
    page = read("docs/http-api.md")
    assert len(set(found)) > 15
    assert [code for code in sorted(set(found)) if f"`{code}`" not in page] == []


def test_everything_a_session_returns_is_documented() -> None:
    methods = {name: method for name, method in vars(Session).items() if not name.startswith("_")}
    found = [getattr(part, "fget", None) or getattr(part, "__func__", part) for part in methods.values()]
    returned = [re.findall(r"\w+", str(method.__annotations__["return"])) for method in found]
    described = {name.rpartition(".")[2] for name in REPORTS}
    known = {"typing", "Self", "None", "Float32", "Context", "Task", "dict", "list", "str"} | described
    assert [name for names in returned for name in names if name not in known] == []


@pytest.mark.parametrize("room", sorted(path.name for path in (ROOT / "pipeline").iterdir() if path.is_dir()))
def test_every_room_is_in_the_table_of_rooms(room: str) -> None:
    if not room.startswith("__"):
        assert f"`pipeline/{room}/`" in read("docs/architecture.md")


# Generated


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_generated_parts_are_as_the_code_says(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert renewed(text) == text, "run `make docs`"


def test_every_generated_part_stands_on_one_page() -> None:
    assert sorted(part for page in PAGES for part in parts_of(page)) == sorted(PARTS)


# True


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_link_is_broken(page: Path) -> None:
    broken = []
    for target in links(page):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_and_test_that_is_named_exists(page: Path) -> None:
    missing = [path + names for path, names in _PATH.findall(prose(page)) if not exists(path + names)]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_link_to_a_test_says_the_tests_name(page: Path) -> None:
    links_to_tests = re.findall(r"\[([^\]]+)\]\((?:\.\./)*(tests/[\w/]+\.py)\)", prose(page))
    names = [
        f"{path}::{text if ' ' not in text else 'test_' + text.replace(' ', '_')}" for text, path in links_to_tests
    ]
    assert [name for name in names if not exists(name)] == []


def exists(name: str) -> bool:
    """Whether a file, folder or test (`FILE::NAME`) is there."""
    path, *names = name.split("::")
    if not (ROOT / path).exists():
        return False
    text = (ROOT / path).read_text(encoding="utf-8") if names else ""
    return all(re.search(rf"^\s*(?:(?:def|class) {part}\b|{part} = )", text, re.MULTILINE) for part in names)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_page_holds_the_marks_of_a_merge(page: Path) -> None:
    assert not re.search(r"^(<{7}|={7}$|>{7})", page.read_text(encoding="utf-8"), re.MULTILINE)


def test_no_page_shows_a_picture_of_another_host() -> None:
    assert [
        t for page in PAGES for t in links(page) if t.startswith("http") and PurePosixPath(t).suffix == ".svg"
    ] == []


# Run


@pytest.mark.parametrize("block", BLOCKS, ids=place_of)
def test_a_block_says_what_it_is(block: Block) -> None:
    assert block.language in LANGUAGES
    assert block.directive in DIRECTIVES
    if block.language == "console":
        assert block.commands(), "a console shows a command: `$ …`"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.tested_by], ids=place_of)
def test_what_is_run_elsewhere_names_what_runs_it(block: Block) -> None:
    for name in block.tested_by:
        assert exists(name) if not name.startswith("make ") else name.removeprefix("make ") in make_targets(), name


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "python"], ids=place_of)
def test_python_can_be_compiled(block: Block) -> None:
    compile(block.text, block.place, "exec")


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "json"], ids=place_of)
def test_json_can_be_read(block: Block) -> None:
    orjson.loads(block.text)


YAML = [block for block in BLOCKS if block.language == "yaml" and not block.tested_by]


@pytest.mark.parametrize("block", YAML, ids=place_of)
def test_a_part_of_a_configuration_is_valid(block: Block) -> None:
    check_yaml(block)


# The tests' own tools


def page_of(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "page.md"
    path.write_text(text)
    return path


def test_a_block_has_the_comment_above_it_and_no_other(tmp_path: Path) -> None:
    page = page_of(tmp_path, "<!-- tested by: make a, b.py -->\n\n```console\n$ x\n```\n\n```text\ny\n```\n")
    first, second = blocks(page)
    assert (first.tested_by, first.line, first.text) == (["make a", "b.py"], 3, "$ x\n")
    assert (second.tested_by, second.directive) == ([], "")


def test_a_block_that_does_not_end_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"page\.md:1"):
        blocks(page_of(tmp_path, "```text\n"))


def test_commands_have_their_continued_lines_and_their_output(tmp_path: Path) -> None:
    [block] = blocks(page_of(tmp_path, "```console\n$ a \\\n    -b\nout\n$ c\n```\n"))
    assert block.commands() == [("a \\\n    -b", ["out"]), ("c", [])]


def test_links_and_anchors_are_found_outside_of_blocks(tmp_path: Path) -> None:
    page = page_of(tmp_path, '# A `b_c` & d\n# A\n# A\n[x](y.md#z) <img src="p.svg">\n```text\n# no\n[q](r)\n```\n')
    assert links(page) == ["y.md#z", "p.svg"]
    assert anchors(page) == {"a-b_c--d", "a", "a-1"}


def test_shown_output_must_be_real_but_for_its_digits_and_frames() -> None:
    compare_shapes(["│ 0.61 T-1 printer │", "..."], "+ 0.58 | T-9 printer +\n", "here")
    compare_shapes(["│ 0.61 a │ 0.5 d │"], "│ 0.58 c │ 0.6 d │\n│ 0.58 a │ 0.6 b │\n", "here")
    with pytest.raises(AssertionError, match="tower"):
        compare_shapes(["│ 0.61 a │ 0.5 tower │"], "│ 0.58 a │ 0.6 b │\n", "here")
    with pytest.raises(AssertionError, match="plotter"):
        compare_shapes(["0.61 T-1 plotter"], "0.58 T-9 printer", "here")
