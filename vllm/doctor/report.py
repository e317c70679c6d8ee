"""Findings as lines for people, in English or Chinese, and as JSON for programs.

Called by: entrypoints/cli/doctor.py.
"""

import json
from collections.abc import Sequence

from vllm.doctor.examine import Broken
from vllm.doctor.line import Finding
from vllm.doctor.notes import in_chinese
from vllm.version import __version__

_PAINT = {"green": "32", "yellow": "33", "red": "31"}
_WORDS = {
    "en": {"green": "green ", "yellow": "yellow", "red": "red   ", "fault": "fault "},
    "zh": {"green": "绿", "yellow": "黄", "red": "红", "fault": "故障"},
}
_ENDS = {
    "en": {
        0: "Ready. {yellow} to look at.",
        1: "Not ready: {red} to mend, {yellow} to look at.",
        2: "Doctor itself failed; please report the lines above.",
    },
    "zh": {
        0: "可以使用。{yellow} 项需留意。",
        1: "尚不能使用：{red} 项需修复，{yellow} 项需留意。",
        2: "诊断程序自身出错；请报告以上内容。",
    },
}


def exit_status(findings: Sequence[Finding | Broken]) -> int:
    """2 when doctor itself failed, 1 on any red, else 0."""
    if any(isinstance(item, Broken) for item in findings):
        return 2
    return int(any(isinstance(item, Finding) and item.level == "red" for item in findings))


def lines(item: Finding | Broken, lang: str, colour: bool) -> str:
    """One finding: a line, and the command that mends it on the next."""
    if isinstance(item, Broken):
        return f"{_WORDS[lang]['fault']} {item.check}\n{item.trace}"
    word = _WORDS[lang][item.level]
    word = f"\033[{_PAINT[item.level]}m{word}\033[0m" if colour else word
    text = f"{word} {item.check:12} {item.zh if lang == 'zh' else item.en}"
    return text + (f"\n       > {_remedy(item, lang)}" if item.mend else "")


def _remedy(item: Finding, lang: str) -> str:
    return in_chinese(item.mend) if lang == "zh" else item.mend


def end(findings: Sequence[Finding | Broken], lang: str) -> str:
    """The last line."""
    levels = [item.level for item in findings if isinstance(item, Finding)]
    return _ENDS[lang][exit_status(findings)].format(red=levels.count("red"), yellow=levels.count("yellow"))


def as_json(findings: Sequence[Finding | Broken], lang: str) -> str:
    """The same as one JSON object."""
    told = [
        {
            "check": item.check,
            "code": item.code,
            "level": item.level,
            "message": item.zh if lang == "zh" else item.en,
            "remedy": _remedy(item, lang),
        }
        for item in findings
        if isinstance(item, Finding)
    ]
    faults = [{"check": item.check, "trace": item.trace} for item in findings if isinstance(item, Broken)]
    status = exit_status(findings)
    report = {"vllm": __version__, "ready": status == 0, "exit_status": status, "findings": told, "faults": faults}
    return json.dumps(report, ensure_ascii=False, indent=1)
