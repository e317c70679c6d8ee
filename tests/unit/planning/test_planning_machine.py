"""Facts of the CPU, from made-up /proc and /sys trees."""

import os
from pathlib import Path

import pytest

from vllm.planning.machine import cpu_facts, num_cores

GIB = 1 << 30


@pytest.fixture(autouse=True)
def four_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)


def machine(root: Path, **files: str) -> Path:
    """A tree of files; __ in a name is a slash."""
    base = {
        "proc__meminfo": "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n",
        "proc__cpuinfo": "processor : 0\nmodel name : Test CPU\nflags : avx2 avx512f avx512_vnni avx512_bf16\n",
    }
    for name, text in {**base, **files}.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_plain_machine(tmp_path: Path) -> None:
    facts = cpu_facts(machine(tmp_path))
    assert (facts.name, facts.total_bytes, facts.free_bytes, facts.num_cores) == ("Test CPU", 16 * GIB, 8 * GIB, 4)
    assert facts.bf16 and facts.int8


@pytest.mark.parametrize(
    ("level", "bf16", "int8"),
    [
        ("AVX2", False, False),
        ("avx512_core_vnni", False, True),
        ("AVX512_CORE_BF16", True, True),
        ("AVX512_CORE_AMX", True, True),
        ("DEFAULT", True, True),
    ],
)
def test_onednn_level_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str, bf16: bool, int8: bool
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", level)
    facts = cpu_facts(machine(tmp_path))
    assert (facts.bf16, facts.int8) == (bf16, int8)


def test_old_cpu(tmp_path: Path) -> None:
    facts = cpu_facts(machine(tmp_path, proc__cpuinfo="flags : sse4_2 avx avx2\n"))
    assert not facts.bf16 and not facts.int8


def test_second_threads_of_a_core_do_not_count(tmp_path: Path) -> None:
    pairs = {
        f"sys__devices__system__cpu__cpu{c}__topology__thread_siblings_list": f"{c % 2},{c % 2 + 2}" for c in range(4)
    }
    assert num_cores(machine(tmp_path, **pairs)) == 2


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", 4), ("250000 100000", 2), ("50000 100000", 1)])
def test_quota_of_version_2(tmp_path: Path, quota: str, cores: int) -> None:
    root = machine(tmp_path, proc__self__cgroup="0::/pod/job\n", sys__fs__cgroup__pod__job__cpu="")
    (root / "sys/fs/cgroup/pod/cpu.max").write_text(quota)
    assert num_cores(root) == cores


def test_quota_of_version_1(tmp_path: Path) -> None:
    root = machine(tmp_path, proc__self__cgroup="3:cpu,cpuacct:/job\n", sys__fs__cgroup__cpu__job__x="")
    (root / "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us").write_text("300000")
    (root / "sys/fs/cgroup/cpu/job/cpu.cfs_period_us").write_text("100000")
    assert num_cores(root) == 3


def test_memory_is_the_least_of_all_groups(tmp_path: Path) -> None:
    root = machine(tmp_path, proc__self__cgroup="0::/pod/job\n", sys__fs__cgroup__pod__job__x="")
    pod, job = root / "sys/fs/cgroup/pod", root / "sys/fs/cgroup/pod/job"
    (pod / "memory.max").write_text(str(4 * GIB))
    (pod / "memory.current").write_text(str(3 * GIB))
    (pod / "memory.stat").write_text(f"anon 5\ninactive_file {GIB}\n")
    (job / "memory.max").write_text("max")
    (job / "memory.current").write_text(str(GIB))
    facts = cpu_facts(root)
    assert (facts.total_bytes, facts.free_bytes) == (4 * GIB, 2 * GIB)


def test_group_seen_only_by_the_host(tmp_path: Path) -> None:
    root = machine(tmp_path, proc__self__cgroup="4:memory:/docker/abc\n", sys__fs__cgroup__memory__x="")
    (root / "sys/fs/cgroup/memory/memory.limit_in_bytes").write_text(str(2 * GIB))
    (root / "sys/fs/cgroup/memory/memory.usage_in_bytes").write_text(str(GIB // 2))
    assert cpu_facts(root).free_bytes == 3 * GIB // 2


def test_odd_files_mean_no_limit(tmp_path: Path) -> None:
    root = machine(tmp_path, proc__self__cgroup="nonsense\n0::/x\n", proc__cpuinfo="", sys__fs__cgroup__cpu="")
    facts = cpu_facts(root)
    assert facts.num_cores == 4 and facts.total_bytes == 16 * GIB and not facts.bf16
