"""The processor: instructions for fast kernels, and the cores that this process may really use."""

from vllm.doctor.line import Line, Says
from vllm.doctor.machine import Machine
from vllm.planning.machine import cpu_facts
from vllm.util import env

NAMES = ("cpu",)
ORDER = 90
_SIMD = frozenset({"avx2", "asimd"})
EXAMPLES: dict[str, str] = {}
LINES = {
    "fine": Line("green", "{cores} usable cores, {name}: {has}", "{cores} 个可用核心，{name}：{has}"),
    "no-simd": Line(
        "yellow",
        "{name} has no AVX2: it works, slowly",
        "{name} 没有 AVX2：可以运行，但较慢",
        "lscpu | grep -i flags   # in a virtual machine: choose the CPU model 'host'",
    ),
    "held-back": Line(
        "yellow",
        "ONEDNN_MAX_CPU_ISA={value} switches off instructions that this processor has",
        "ONEDNN_MAX_CPU_ISA={value} 关闭了处理器具备的指令",
        "unset ONEDNN_MAX_CPU_ISA",
    ),
    "threads": Line(
        "yellow",
        "OMP_NUM_THREADS={value}, but {cores} cores may be used (affinity, control groups); more threads are slower",
        "OMP_NUM_THREADS={value}，但只能使用 {cores} 个核心（亲和性、cgroup）；线程过多反而更慢",
        "export OMP_NUM_THREADS={cores}",
    ),
    "bad-threads": Line(
        "yellow",
        "OMP_NUM_THREADS={value!r} is not a whole number above 0",
        "OMP_NUM_THREADS={value!r} 不是大于 0 的整数",
        "export OMP_NUM_THREADS={cores}",
    ),
}


def check(machine: Machine) -> Says:
    """Flags, then the variables that would waste them."""
    facts = cpu_facts()
    formats = [name for name, has in (("bf16", facts.bf16), ("int8", facts.int8)) if has]
    vectors = [flag for flag in ("avx512f", "avx2", "asimd") if flag in facts.flags][:1]
    words = {"cores": facts.num_cores, "name": facts.name, "has": " ".join(vectors + formats) or "SSE"}
    level, threads = env.text("ONEDNN_MAX_CPU_ISA"), env.text("OMP_NUM_THREADS")
    faults: list[tuple[str, dict[str, object]]] = []
    if not facts.flags & _SIMD:
        faults.append(("no-simd", words))
    if level and level.upper() not in ("ALL", "DEFAULT") and not (facts.bf16 and facts.int8):
        faults.append(("held-back", {"value": level}))
    if threads is not None:
        first = threads.split(",")[0].strip()
        if not first.isdigit() or int(first) < 1:
            faults.append(("bad-threads", {**words, "value": threads}))
        elif int(first) > 2 * facts.num_cores:
            faults.append(("threads", {**words, "value": threads}))
    yield from faults
    if not faults:
        yield "fine", words
