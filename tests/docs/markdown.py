"""The Markdown of this repository as its tests see it: fenced blocks with their directives, links, headings."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.config_trees import ROOT

_COMMENT = re.compile(r"<!--\s*([a-z ]+?)(?::\s*(.*?))?\s*-->")
_FENCE = re.compile(r"^```(\w*)\s*$")
_HEADING = re.compile(r"^#{1,6} (.+?)\s*$", re.MULTILINE)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|<(?:img|source|a)\b[^>]*?(?:src|srcset|href)=\"([^\"]+)\"")
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block. What the tests do with it is said by its language and by the comment above it.

    `<!-- tested by: NAME, NAME -->`: not run here; the names are tests, make targets or scripts that run the same.
    `<!-- file: PATH -->`: becomes a file of the reader's folder.
    `<!-- onto: configs/NAME.yaml -->`: a part of that configuration; without it, of configs/laptop.yaml.
    `<!-- stop the app -->`: the reader presses Ctrl-C in the terminal of `refract run` first.
    """

    page: Path
    line: int
    language: str
    text: str
    directive: str = ""
    value: str = ""

    @property
    def place(self) -> str:
        """`docs/quickstart.md:12`"""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def tested_by(self) -> list[str]:
        """The names that run the same, if the block is not run itself."""
        return [name.strip() for name in self.value.split(",")] if self.directive == "tested by" else []

    def commands(self) -> list[tuple[str, list[str]]]:
        """Returns the commands of a `console` block, continued lines joined, each with the output shown below it."""
        found: list[tuple[str, list[str]]] = []
        continued = False
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif continued:
                found[-1] = (f"{found[-1][0]}\n{line}", [])
            elif found:
                found[-1][1].append(line)
            continued = bool(found) and not found[-1][1] and line.endswith("\\")
        return found


def pages() -> list[Path]:
    """Returns every Markdown file that is written for readers."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """Returns the fenced blocks of a page in order."""
    return list(_blocks(page))


def _blocks(page: Path) -> Iterator[Block]:
    directive, fence, text = ("", ""), None, list[str]()
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if fence is not None:
            if line.rstrip() != "```":
                text.append(line)
                continue
            yield Block(page, fence[0], fence[1], "\n".join(text) + "\n", *directive)
            directive, fence, text = ("", ""), None, []
        elif found := _FENCE.match(line):
            fence = number, found[1]
        elif comment := _COMMENT.fullmatch(line.strip()):
            directive = comment[1], comment[2] or ""
        elif line.strip():
            directive = "", ""
    if fence is not None:
        raise AssertionError(f"{page.name}:{fence[0]}: the block does not end")


def prose(page: Path) -> str:
    """Returns a page without its fenced blocks."""
    return _FENCED.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> list[str]:
    """Returns the targets of all links and pictures."""
    return [first or second for first, second in _LINK.findall(prose(page))]


def anchors(page: Path) -> set[str]:
    """Returns the anchors that GitHub gives to the headings of a page."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in _HEADING.findall(prose(page)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found
