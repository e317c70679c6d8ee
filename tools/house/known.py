"""Writes docs/faults.md: every fault that is known of systems like this, and the test that holds our answer to it.

`python -m tools.house known`; tests/house checks that the tests named here are there and that no line of doctor's is
left out.
"""

import re

from tools.house.faults import _WORD, _cell
from tools.house.source import ROOT
from vllm.doctor.examine import CATALOGUE, names

FILE = ROOT / "docs" / "faults.md"
_FAULTS, _UNIT, _OLD = "fault/test_doctor_faults.py", "unit/doctor/test_doctor.py", "e2e/test_old_ways.py"
_GENERATE, _PULL = "unit/doctor/test_generate.py", "unit/loading/test_pull.py"
_MACHINE, _HUB = "unit/planning/test_planning_machine.py", "unit/loading/test_resolve_model.py"

SEEDED = {
    "system:untested": (_UNIT, "test_other_systems_are_told_what_works"),
    "system:wsl-no-gpu": (_FAULTS, "test_other_makers_devices_and_wsl_without_a_gpu"),
    "python:too-old": (_UNIT, "test_pythons_that_are_too_old_or_too_new"),
    "python:too-new": (_UNIT, "test_pythons_that_are_too_old_or_too_new"),
    "python:elsewhere": (_FAULTS, "test_several_pythons"),
    "python:managed": (_UNIT, "test_the_systems_own_python"),
    "package:other": (_FAULTS, "test_the_other_project_of_the_same_name"),
    "package:twice": (_FAULTS, "test_our_own_package_twice"),
    "package:remains": (_FAULTS, "test_compiled_files_of_the_other_project_among_ours"),
    "packages:missing": (_FAULTS, "test_packages_that_are_missing"),
    "packages:range": (_FAULTS, "test_a_package_that_another_install_has_changed"),
    "packages:no-compiler": (_FAULTS, "test_packages_that_are_missing"),
    **{
        f"torch:{code}": (_FAULTS, "test_torch_is_not_the_right_one")
        for code in ("missing", "too-old", "too-new", "cpu-only", "old-driver", "dropped-gpu", "no-arch")
    },
    **{f"torch:{code}": (_FAULTS, "test_torch_cannot_be_imported") for code in ("broken", "killed", "slow")},
    "gpu:no-driver": (_FAULTS, "test_nvidia_smi_complains"),
    "gpu:mismatch": (_FAULTS, "test_nvidia_smi_complains"),
    "gpu:no-library": (_FAULTS, "test_an_old_gpu_and_a_library_that_is_none"),
    "gpu:old": (_FAULTS, "test_an_old_gpu_and_a_library_that_is_none"),
    "gpu:busy": (_FAULTS, "test_an_old_gpu_and_a_library_that_is_none"),
    "gpu:hidden": (_FAULTS, "test_gpus_that_are_hidden_or_not_there"),
    "gpu:wrong-index": (_FAULTS, "test_gpus_that_are_hidden_or_not_there"),
    "gpu:unreachable": (_FAULTS, "test_a_driver_that_torch_cannot_reach"),
    **{
        f"accelerators:{code}": (_FAULTS, "test_other_makers_devices_and_wsl_without_a_gpu")
        for code in ("rocm", "intel", "tpu")
    },
    **{f"compiler:{code}": (_FAULTS, "test_triton_has_no_compiler") for code in ("missing", "broken", "no-headers")},
    "cpu:no-simd": (_FAULTS, "test_little_memory_and_an_old_processor"),
    "cpu:held-back": (_FAULTS, "test_limits_cores_and_variables"),
    "cpu:threads": (_FAULTS, "test_limits_cores_and_variables"),
    "cpu:bad-threads": (_FAULTS, "test_threads_that_are_no_number"),
    "memory:little": (_FAULTS, "test_little_memory_and_an_old_processor"),
    "memory:addresses": (_FAULTS, "test_limits_cores_and_variables"),
    "caches:no-tmp": (_FAULTS, "test_no_temporary_folder"),
    "caches:read-only": (_FAULTS, "test_folders_that_cannot_be_written"),
    "caches:full": (_FAULTS, "test_a_full_disk_little_shared_memory_and_a_read_only_home"),
    **{
        f"hub:{code}": (_FAULTS, "test_the_hub_the_proxy_and_the_token")
        for code in ("bad-endpoint", "unreachable", "proxy", "bad-token")
    },
    "port:taken": (_FAULTS, "test_a_port_that_is_taken"),
    "port:refused": (_UNIT, "test_a_port_that_nobody_may_take"),
    "limits:files": (_FAULTS, "test_limits_cores_and_variables"),
    "limits:shared": (_FAULTS, "test_a_full_disk_little_shared_memory_and_a_read_only_home"),
    **{f"variables:{code}": (_FAULTS, "test_limits_cores_and_variables") for code in ("build", "unknown", "bad-value")},
    "generate:failed": (_FAULTS, "test_generation_that_fails"),
    "generate:slow": (_FAULTS, "test_generation_that_never_ends_well"),
    "generate:killed": (_FAULTS, "test_generation_that_never_ends_well"),
    "generate:elsewhere": (_GENERATE, "test_a_gpu_that_was_silently_left_aside_is_red"),
    "generate:odd": (_GENERATE, "test_wrong_tokens_are_red"),
    "generate:no-torch": (_FAULTS, "test_torch_cannot_be_imported"),
}
"""A line of doctor's -> the test that seeds its fault."""

DESIGN = (
    (
        "pip replaces an installed torch",
        "a torch in range satisfies the wheel; others are kept too",
        _OLD,
        "test_existing_torch_in_one_sequence",
    ),
    (
        "a nightly or a vendor's torch",
        "`use_existing_torch.py` takes torch out of the requirements",
        _OLD,
        "test_a_torch_out_of_range_is_kept_too",
    ),
    ("`--no-deps`", "installs, and leaves torch alone", _OLD, "test_no_deps_leaves_torch_alone"),
    (
        "a build killed (exit code 137), ninja, cmake, nvcc, ccache, flash-attn or xformers missing",
        "nothing is compiled: the wheel is pure Python",
        "house/test_packaging.py",
        "test_the_wheel_is_pure_python",
    ),
    (
        "MAX_JOBS, NVCC_THREADS, CMAKE_*, TORCH_CUDA_ARCH_LIST, VLLM_TARGET_DEVICE, VLLM_USE_PRECOMPILED, CUDA_HOME",
        "accepted without effect; doctor says so (variables)",
        _OLD,
        "test_variables_of_a_build_do_no_harm",
    ),
    (
        "an unknown or misspelt VLLM_ variable",
        "named with the nearest known one",
        _FAULTS,
        "test_limits_cores_and_variables",
    ),
    (
        "two packages named vllm",
        "told apart by their metadata, never overwritten",
        _OLD,
        "test_python_only_dev_leaves_the_other_project_alone",
    ),
    (
        "conda",
        "an environment of conda's kind: its own prefix, libraries and variables",
        _OLD,
        "test_an_environment_of_condas_kind",
    ),
    (
        "NUMA and control groups misread",
        "cores by affinity, quota (versions 1 and 2) and threads of a core; memory by the least limit",
        _MACHINE,
        "test_quota_of_version_2",
    ),
    (
        "a container's limit seen only by the host",
        "the nearest group that is there counts",
        _MACHINE,
        "test_group_seen_only_by_the_host",
    ),
    (
        "memory runs out half-way",
        "every byte is planned; what does not fit is refused with what would",
        "e2e/test_planned_bytes.py",
        "test_bytes_are_those_of_the_plan",
    ),
    ("no disk space for the cache", "told before anything is fetched", _PULL, "test_no_space"),
    ("a gated model without a token", "named, with where to get one", _PULL, "test_gated"),
    ("a download that breaks off", "goes on where it broke off", _PULL, "test_cut_off_goes_on"),
    ("a busy hub (429)", "asked again, later", _PULL, "test_busy_hub_is_asked_again"),
    (
        "a file that is not what the hub says",
        "fetched again, then removed",
        _PULL,
        "test_wrong_content_twice_is_removed",
    ),
    (
        "a hub that is silent or drops packets",
        "given up in time, with the ways out",
        _HUB,
        "test_silent_hub_fails_in_time",
    ),
    ("no network at all", "folders, caches and the built-in model work", _HUB, "test_offline"),
    (
        "the user's own script is run again by a child",
        "children are started as modules, never forked",
        "e2e/test_issue_scripts.py",
        "test_built_in_model",
    ),
)
"""(what breaks elsewhere, what happens here, file, test)"""

_HEAD = """# Known faults, and the test against each

Made by `python -m tools.house known`; do not edit. Most of what people write about systems of this kind is how their
installation broke. Each of those faults is impossible here, or `vllm doctor` names it with what mends it
([troubleshooting](troubleshooting.md)); a test holds it either way. Tests of `fault/` seed the fault from outside: a
fake nvidia-smi or libcuda, a broken torch, limits, mounts, closed ports; doctor runs as a command.

Not available where this was built, so seeded but never met for real: AMD, Intel and TPU devices, WSL, macOS, Windows,
conda itself, a container engine.
"""


def page() -> str:
    """The whole page."""
    lines = [_HEAD, "## Impossible, or dealt with on the way", "| Elsewhere | Here | Test |", "|---|---|---|"]
    lines += [f"| {fault} | {here} | `{file}::{test}` |" for fault, here, file, test in DESIGN]
    count = sum(line.level != "green" for name in names() for line in CATALOGUE.load(name).LINES.values())
    lines += [f"\n## Named by doctor ({count})", "| Line | Colour | What it says | Test |", "|---|---|---|---|"]
    for name in names():
        for code, line in CATALOGUE.load(name).LINES.items():
            if line.level != "green":
                text = _WORD.sub(lambda word: "" if word[1] == "hint" else f"*{word[1]}*", line.en)
                file, test = SEEDED[f"{name}:{code}"]
                lines.append(f"| {name}:{code} | {line.level} | {_cell(text)} | `{file}::{test}` |")
    return "\n".join(lines) + "\n"


def missing() -> list[str]:
    """Tests named here that are not there."""
    found = []
    for file, test in [*SEEDED.values(), *((file, test) for _, _, file, test in DESIGN)]:
        path = ROOT / "tests" / file
        if not path.exists() or not re.search(rf"^def {test}\(", path.read_text("utf-8"), re.MULTILINE):
            found.append(f"{file}::{test}")
    return found


def write() -> None:
    """Write the page."""
    FILE.write_text(page(), "utf-8")
