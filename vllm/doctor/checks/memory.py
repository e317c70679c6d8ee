"""Memory within the control groups' limits, and limits on this process's addresses."""

from vllm.doctor.line import Line, Says
from vllm.doctor.machine import Machine
from vllm.planning.machine import cpu_facts
from vllm.util.arith import human_bytes

NAMES = ("memory",)
ORDER = 100
LEAST = 1 << 30
ADDRESSES = 16 << 30
EXAMPLES: dict[str, str] = {}
LINES = {
    "fine": Line("green", "{free} free of {total}", "{total} 中可用 {free}"),
    "little": Line(
        "yellow",
        "only {free} of memory is free of {total} (machine and control groups); a model may be killed (exit 137)",
        "可用内存仅 {free}（共 {total}，含 cgroup 限制）；模型可能被杀死（退出码 137）",
        "ps aux --sort=-rss | head -5   # end what is large; in a container: docker run --memory=8g ...",
    ),
    "addresses": Line(
        "yellow",
        "ulimit -v allows {limit} of addresses; torch alone reserves more than it uses",
        "ulimit -v 只允许 {limit} 地址空间；torch 预留的地址多于实际使用",
        "ulimit -v unlimited",
    ),
}


def check(machine: Machine) -> Says:
    """Free bytes, then the address limit."""
    facts = cpu_facts()
    words = {"free": human_bytes(facts.free_bytes), "total": human_bytes(facts.total_bytes)}
    yield "little" if facts.free_bytes < LEAST else "fine", words
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    if soft != resource.RLIM_INFINITY and soft < ADDRESSES:
        yield "addresses", {"limit": human_bytes(soft)}
