"""Writes docs/troubleshooting.md and its Chinese twin from doctor's own tables: `python -m tools.house faults`.

What `vllm doctor` says and what the page says can so never differ; tests/house compares them.
"""

import re

from tools.house.source import ROOT
from vllm.doctor.examine import CATALOGUE, names
from vllm.doctor.notes import in_chinese

_HEADS = {
    "en": """# Troubleshooting

Made from the tables of `vllm doctor`; do not edit. Run `vllm doctor` first: it says which of these lines is yours, with
the words in *slanted letters* and CAPITALS filled in. Red stops something that is there from working; yellow does not.

| Check | Colour | What it says | What mends it |
|---|---|---|---|
""",
    "zh": """# 故障排除

本页由 `vllm doctor` 的表格生成，请勿手工编辑。请先运行 `vllm doctor --lang zh`：
它会指出属于您的那一行，并填好*斜体*和大写部分。红色表示现有的某项无法使用；黄色表示可以使用，但需留意。

| 检查 | 颜色 | 提示 | 修复方法 |
|---|---|---|---|
""",
}
_WORD = re.compile(r"\{(\w+?)(?:_zh)?(?:[!:][^}]*)?\}")
_COLOURS = {"en": {"red": "red", "yellow": "yellow"}, "zh": {"red": "红", "yellow": "黄"}}
FILES = {"en": ROOT / "docs" / "troubleshooting.md", "zh": ROOT / "docs" / "troubleshooting.zh-CN.md"}


def page(lang: str) -> str:
    """The page in `lang`: en or zh."""
    rows = []
    for name in names():
        module = CATALOGUE.load(name)
        for code, line in module.LINES.items():
            if line.level != "green":
                text, mend = (line.zh if lang == "zh" else line.en), line.mend
                # why: "code.word" is an example for one line, "word" one for all others.
                for word, example in sorted(module.EXAMPLES.items(), key=lambda item: "." not in item[0]):
                    mend = mend.replace(f"{{{word.removeprefix(code + '.')}}}", example)
                mend = in_chinese(mend) if lang == "zh" else mend
                mend = _WORD.sub(lambda word: word[1].upper(), mend.replace("{python}", "python"))
                text = _WORD.sub(lambda word: "" if word[1] == "hint" else f"*{word[1]}*", text)
                rows.append(f"| {name} | {_COLOURS[lang][line.level]} | {_cell(text)} | `{_cell(mend)}` |")
    return _HEADS[lang] + "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def write() -> None:
    """Write both pages."""
    for lang, file in FILES.items():
        file.write_text(page(lang), "utf-8")
