"""The code blocks of every document, and what is said above them about running them.

    <!-- says: WORDS -->           its output has these words, in any order; several, with commas
    <!-- not run: REASON -->       it cannot run in a test; the reason is required
    <!-- replay: FILE -->          tests/house/test_contributing.py runs it
    <!-- clean environment -->     it runs in a checkout, in a virtual environment without this package

A block without a language is a drawing.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from tools.house.source import ROOT

LANGUAGES = {"python", "sh", "json", "yaml", "toml", "ini", "text", ""}
_BLOCK = re.compile(r"((?:^<!-- [^\n]* -->\n)*)^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    file: str
    number: int
    language: str
    code: str
    marks: str

    @property
    def id(self) -> str:
        return f"{self.file}-{self.number}"

    def mark(self, name: str) -> str | None:
        """What `<!-- name: ... -->` above the block says; "" for a mark without words."""
        found = re.search(rf"<!-- {name}(?:: ([^\n]*))? -->", self.marks)
        return None if found is None else found[1] or ""

    @property
    def words(self) -> list[str]:
        """What its output must say."""
        return [word.strip() for word in (self.mark("says") or "").split(",") if word.strip()]


def documents() -> list[Path]:
    """Every document but the doors of rooms, which hold one drawing each."""
    return sorted(path.relative_to(ROOT) for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")))


def blocks(file: Path | str) -> list[Block]:
    """The blocks of one document."""
    text = (ROOT / file).read_text("utf-8")
    return [
        Block(str(file), number, language, code, marks)
        for number, (marks, language, code) in enumerate(_BLOCK.findall(text), start=1)
    ]


def all_blocks() -> list[Block]:
    """The blocks of all documents."""
    return [block for file in documents() for block in blocks(file)]
