"""Words that do not belong in a file, from house.toml. Comments and docstrings may say them; code may not."""

import io
import re
import tokenize
from collections.abc import Iterator
from typing import Any

from tools.house.source import Module


def findings(files: list[Module], house: dict[str, Any]) -> Iterator[str]:
    """One sentence for each line of code that uses a word where it does not belong."""
    for module in files:
        rules = [
            (re.compile(rule["pattern"]), rule["why"])
            for rule in house["word"]
            if module.file.startswith(tuple(rule["where"]))
            and not module.file.startswith(tuple(rule.get("except", ())))
        ]
        for number, line in enumerate(_code_only(module.text), start=1) if rules else ():
            for pattern, why in rules:
                match = pattern.search(line)
                if match:
                    yield f"{module.file}:{number}: {match[0].strip()!r}: {why}"


def _applies(rule: dict[str, Any], file: str) -> bool:
    return file.startswith(tuple(rule["where"])) and not file.startswith(tuple(rule.get("except", ())))


def _code_only(text: str) -> list[str]:
    """The lines of `text` with comments and multi-line strings blanked out."""
    lines = [list(line) for line in text.splitlines()]
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        (first, start), (last, end) = token.start, token.end
        if token.type == tokenize.COMMENT and not re.search(r"\b(TODO|FIXME|XXX)\b", token.string):
            lines[first - 1][start:] = ""
        elif token.type == tokenize.STRING and token.string.endswith('"""'):
            for at in range(first, last + 1):
                row = lines[at - 1]
                stop = end if at == last else len(row)
                begin = start if at == first else 0
                row[begin:stop] = " " * (stop - begin)
    return ["".join(line) for line in lines]
