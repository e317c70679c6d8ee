"""Ten tokens from the built-in model on each device, in a child process: the proof that all of it works together."""

import json
import sys

from vllm.doctor.line import Line, Says
from vllm.doctor.machine import Machine
from vllm.doctor.torch_facts import signal_name
from vllm.util import env

NAMES = ("generate",)
ORDER = 1000
TRIAL = "from vllm.entrypoints.trial import main\nmain()\n"
MARK = "vllm-doctor-trial:"
EXAMPLES = {"mend": 'VLLM_PLATFORM=cpu {python} -c "from vllm.entrypoints.trial import main; main()"'}
LINES = {
    "fine": Line(
        "green",
        "{device}: {count} tokens, {start:.1f} s to start, {seconds:.2f} s to generate: {text!r}",
        "{device}：{count} 个词元，启动 {start:.1f} 秒，生成 {seconds:.2f} 秒：{text!r}",
    ),
    "failed": Line("red", "{device}: {problem}", "{device}：{problem}", "{mend}"),
    "slow": Line(
        "red",
        "{device}: no ten tokens within {limit:.0f} s",
        "{device}：{limit:.0f} 秒内没有生成十个词元",
        "{python} -m vllm.entrypoints.cli.main doctor generate --limit 600",
    ),
    "killed": Line(
        "red",
        "{device}: ended by {problem} (SIGKILL is mostly the machine running out of memory)",
        "{device}：被 {problem} 终止（SIGKILL 多半是内存不足）",
        "free -h   # then end what is large, or allow more memory: docker run --memory=8g ...",
    ),
    "elsewhere": Line(
        "red", "{device} was asked for, but {ran} was used", "要求使用 {device}，实际用了 {ran}", "{mend}"
    ),
    "odd": Line(
        "red",
        "{device}: ten tokens came, but not those that the model gives elsewhere: {text!r}",
        "{device}：生成了十个词元，但与该模型应给出的不同：{text!r}",
        "{python} -m vllm.entrypoints.cli.main collect-env   # and report it with this line",
    ),
    "no-torch": Line(
        "red",
        "nothing was generated: torch does not work",
        "没有生成：torch 无法使用",
        "{python} -m vllm.entrypoints.cli.main doctor torch",
    ),
}


def check(machine: Machine) -> Says:
    """The CPU, then each GPU that torch sees."""
    if machine.torch.state != "works":
        yield "no-torch", {"python": sys.executable}
        return
    yield _trial(machine, "cpu", {"VLLM_PLATFORM": "cpu", "CUDA_VISIBLE_DEVICES": ""})
    if machine.torch.available and not machine.cpu_chosen:
        # why: a list of the user's own keeps its meaning; its entries may be numbers or names.
        chosen = (env.text("CUDA_VISIBLE_DEVICES") or "").split(",")
        for index in range(machine.torch.count):
            name = chosen[index].strip() if index < len(chosen) and chosen[index].strip() else str(index)
            yield _trial(machine, f"cuda:{index}", {"VLLM_PLATFORM": "cuda", "CUDA_VISIBLE_DEVICES": name})


def _trial(machine: Machine, device: str, changes: dict[str, str]) -> tuple[str, dict[str, object]]:
    ran = machine.python(TRIAL, machine.limit, **changes)
    again = " ".join(f"{name}={value}" for name, value in changes.items())
    words: dict[str, object] = {"device": device, "python": sys.executable, "limit": machine.limit}
    words["mend"] = f'{again} {sys.executable} -c "from vllm.entrypoints.trial import main; main()"   # tells all'
    if ran.status is None:
        return "slow", words
    if ran.status < 0:
        return "killed", {**words, "problem": signal_name(-ran.status)}
    told = next((line for line in ran.out.splitlines() if line.startswith(MARK)), None)
    if told is None or ran.status != 0:
        return "failed", {**words, "problem": ran.last_line or f"exit status {ran.status}"}
    words.update(json.loads(told.removeprefix(MARK)))
    if words["ran"] != device.partition(":")[0]:
        return "elsewhere", words
    return ("fine" if words["expected"] else "odd"), words
