"""Environment variables that mean nothing here, or that have a value which cannot be read."""

from vllm.doctor.line import Line, Says
from vllm.doctor.machine import Machine
from vllm.util import env

NAMES = ("variables",)
ORDER = 150
EXAMPLES: dict[str, str] = {}
LINES = {
    "fine": Line("green", "none that is unknown", "没有未知的变量"),
    "build": Line(
        "yellow",
        "not needed, nothing is compiled here: {names}",
        "不需要，这里不编译任何东西：{names}",
        "unset {names}",
    ),
    "unknown": Line(
        "yellow",
        "{name} is set but unknown here and ignored{hint}",
        "{name} 已设置，但这里不认识，会被忽略{hint_zh}",
        "unset {name}",
    ),
    "bad-value": Line("red", "{name} cannot be read: {sentence}", "{name} 的值无法识别", "unset {name}"),
}
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_PLATFORMS = ("cpu", "cuda", "rocm")


def check(machine: Machine) -> Says:
    """Old build settings, strangers, then our own."""
    build, strangers, bad = env.build_settings(), env.unknown(), list(_bad())
    if build:
        yield "build", {"names": " ".join(build)}
    for sentence in strangers:
        near = sentence.rpartition("did you mean ")[2].rstrip("?") if "did you mean" in sentence else ""
        hints = {"hint": near and f"; did you mean {near}?", "hint_zh": near and f"；是否应为 {near}？"}
        yield "unknown", {**hints, "name": sentence.split()[0]}
    for name, sentence in bad:
        yield "bad-value", {"name": name, "sentence": sentence}
    if not build and not strangers and not bad:
        yield "fine", {}


def _bad() -> list[tuple[str, str]]:
    """(name, what is wrong) for each of our variables whose value is none."""
    found = []
    for name in ("VLLM_BATCH_INVARIANT", "VLLM_USE_MODELSCOPE"):
        try:
            env.flag(name)
        except ValueError as error:
            found.append((name, str(error)))
    try:
        env.number("VLLM_CPU_KVCACHE_SPACE")
    except ValueError as error:
        found.append(("VLLM_CPU_KVCACHE_SPACE", str(error)))
    for name, allowed in (("VLLM_LOGGING_LEVEL", _LEVELS), ("VLLM_PLATFORM", _PLATFORMS)):
        value = env.text(name)
        if value is not None and value not in allowed and value.upper() not in allowed:
            found.append((name, f"{name}={value!r} is none of {', '.join(allowed)}"))
    return found
