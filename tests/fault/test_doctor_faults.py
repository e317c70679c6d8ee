"""Faults seeded from outside the process: `vllm doctor`, run as a command, names each with what mends it."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# why: a healthy environment, whatever the shell of the tests has; a fault is then one change.
CLEAN = {
    "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "LANG": "C.UTF-8",
}
DOCTOR = [sys.executable, "-P", "-m", "vllm.entrypoints.cli.main", "doctor"]
H100 = "0, NVIDIA H100 80GB HBM3, 580.65.06, 81559, 4, 9.0"
V100 = "0, Tesla V100-SXM2-16GB, 580.65.06, 16384, 4, 7.0"
TORCH = """
__version__ = {version!r}
def ones(n): return n
class version: cuda, hip = {cuda!r}, None
class cuda:
    is_available = staticmethod(lambda: {available})
    device_count = staticmethod(lambda: 1)
    get_arch_list = staticmethod(lambda: {arches!r})
"""


class Doctor:
    """Runs `vllm doctor --json` in an environment with faults seeded in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.paths, self.wrapper = folder, [str(ROOT)], []
        self.environment = {**CLEAN, "HOME": str(folder)}

    def command(self, name: str, script: str) -> None:
        """Put a command of this name before all others on PATH."""
        bin = self.folder / "bin"
        bin.mkdir(exist_ok=True)
        (bin / name).write_text(f"#!/bin/sh\n{script}\n")
        (bin / name).chmod(0o755)
        if str(bin) not in self.environment["PATH"]:
            self.environment["PATH"] = f"{bin}:{self.environment['PATH']}"

    def gpu(self, *lines: str) -> None:
        """A machine whose nvidia-smi lists these GPUs."""
        self.command("nvidia-smi", "cat <<E\n" + "\n".join(lines) + "\nE")

    def package(self, name: str, text: str) -> None:
        """A package of this name before all others."""
        site = self.folder / "site"
        (site / name).mkdir(parents=True)
        (site / name / "__init__.py").write_text(text)
        if str(site) not in self.paths:
            self.paths.insert(0, str(site))

    def torch(
        self, version: str, cuda: str | None = None, available: bool = False, arches: tuple[str, ...] = ()
    ) -> None:
        """A torch that says this of itself."""
        self.package("torch", TORCH.format(version=version, cuda=cuda, available=available, arches=list(arches)))

    def run(self, *arguments: str, **environment: str) -> "Report":
        command = [*self.wrapper, *DOCTOR, "--json", *arguments]
        environment = {**self.environment, "PYTHONPATH": ":".join(self.paths), **environment}
        done = subprocess.run(command, env=environment, cwd=self.folder, capture_output=True, text=True, timeout=120)
        assert done.returncode in (0, 1), done.stdout + done.stderr
        return Report(done.returncode, done.stdout)


class Report:
    def __init__(self, status: int, text: str) -> None:
        self.status, self.text = status, text
        self.findings = {f"{one['check']}:{one['code']}": one for one in json.loads(text)["findings"]}

    def says(self, fault: str, level: str, message: str, remedy: str) -> None:
        """This fault is told, in this colour, and both texts match."""
        one = self.findings.get(fault)
        assert one is not None, f"{fault} is not among {sorted(self.findings)}"
        assert one["level"] == level and self.status >= (level == "red")
        assert re.search(message, one["message"]), one["message"]
        assert re.search(remedy, one["remedy"]), one["remedy"]


@pytest.fixture
def doctor(tmp_path):
    return Doctor(tmp_path)


def test_a_healthy_machine_shows_no_red_and_generates(doctor):
    report = doctor.run()
    assert report.status == 0, report.text
    assert not [one for one in report.findings.values() if one["level"] == "red"]
    assert "10 tokens" in report.findings["generate:fine"]["message"]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_people_get_one_screen(doctor, lang):
    doctor.torch("2.13.0+cpu")
    command = [*DOCTOR, "--no-generate", "--lang", lang]
    environment = {**doctor.environment, "PYTHONPATH": ":".join(doctor.paths), "MAX_JOBS": "4"}
    done = subprocess.run(command, env=environment, cwd=doctor.folder, capture_output=True, text=True)
    assert done.returncode == 0 and len(done.stdout.splitlines()) <= 24, done.stdout
    assert "       > unset MAX_JOBS" in done.stdout
    assert ("不需要" in done.stdout) == (lang == "zh") and ("not needed" in done.stdout) == (lang == "en")


TORCHES = {
    "missing": (None, {}, "red", "not installed", r"pip install.*torch>=2.11,<2.14.*whl/cpu"),
    "too-old": (None, {"version": "2.9.1+cpu"}, "red", r"2\.9\.1.* older", "torch>=2.11,<2.14"),
    **{
        f"too-old (CUDA {cuda})": (
            "0, NVIDIA A100, 470.82.01, 40960, 4, 8.0",
            {"version": f"{version}+cu{cuda.replace('.', '')}", "cuda": cuda},
            "red",
            rf"{re.escape(version)}.* older",
            "torch>=2.11,<2.14",
        )
        for cuda, version in (("11.8", "2.7.1"), ("12.1", "2.5.1"), ("12.4", "2.6.0"))
    },
    "too-new": (None, {"version": "2.15.0+cpu"}, "yellow", r"2\.15\.0.* newer", "torch>=2.11,<2.14"),
    "cpu-only": (H100, {"version": "2.13.0+cpu"}, "red", "CPU build.*H100", r'install --force-reinstall "torch[^"]*"$'),
    "old-driver": (
        "0, NVIDIA A100, 550.54.15, 40960, 4, 8.0",
        {"version": "2.13.0+cu130", "cuda": "13.0"},
        "red",
        r"CUDA 13\.0.* driver 580 .*550\.54\.15",
        "whl/cu126",
    ),
    "old-driver (12.8)": (
        "0, NVIDIA A100, 470.82.01, 40960, 4, 8.0",
        {"version": "2.13.0+cu128", "cuda": "12.8"},
        "red",
        r"CUDA 12\.8.* driver 525 .*470\.82\.01",
        "nvidia-driver-580 .*>= 525",
    ),
    "dropped-gpu": (V100, {"version": "2.13.0+cu130", "cuda": "13.0"}, "red", r"13\.0.*V100.*7\.0", "whl/cu126"),
    "no-arch": (
        "0, NVIDIA RTX PRO 6000, 580.65.06, 97887, 4, 12.0",
        {"version": "2.11.0+cu126", "cuda": "12.6", "available": True, "arches": ("sm_80", "sm_90")},
        "red",
        r"no code for .*12\.0.*sm_80 sm_90",
        "pip install --force-reinstall",
    ),
}


@pytest.mark.parametrize("case", TORCHES)
def test_torch_is_not_the_right_one(doctor, case):
    gpu, torch, level, message, remedy = TORCHES[case]
    if gpu:
        doctor.gpu(gpu)
    if torch:
        doctor.torch(**torch)
    else:
        doctor.package("torch", "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    doctor.run("torch").says(f"torch:{case.split()[0]}", level, message, remedy)


BROKEN = {
    "broken": (
        "raise OSError('libcudart.so.12: cannot open shared object file')",
        "libcudart.so.12",
        "force-reinstall",
    ),
    "broken (half a package)": (
        "raise ImportError('undefined symbol: _ZN3c10')",
        "undefined symbol",
        "force-reinstall",
    ),
    "broken (a folder named torch)": ("", "has no attribute", "force-reinstall"),
    "killed": ("import os; os.kill(os.getpid(), 4)", "SIGILL", "force-reinstall"),
    "slow": ("import time; time.sleep(60)", "longer than 1 s", "doctor torch"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_torch_cannot_be_imported(doctor, case):
    text, message, remedy = BROKEN[case]
    doctor.package("torch", text)
    report = doctor.run("torch", "generate", "--limit", "1")
    report.says(f"torch:{case.split()[0]}", "red", message, remedy)
    report.says("generate:no-torch", "red", "nothing was generated", "doctor torch")


def test_the_real_torch_with_half_a_library(doctor):
    real, site = Path(find_spec("torch").origin).parent, doctor.folder / "site"
    (site / "torch/lib").mkdir(parents=True)
    for file in real.iterdir():
        if file.name != "lib":
            (site / "torch" / file.name).symlink_to(file)
    for file in (real / "lib").iterdir():
        (site / "torch/lib" / file.name).symlink_to(file)
    broken = site / "torch/lib/libtorch_cpu.so"
    broken.unlink()
    broken.write_bytes(b"\x7fELF, and then the disk was full")
    extension = next(real.glob("_C*.so"))  # found beside itself, so it must lie beside the broken one
    (site / "torch" / extension.name).unlink()
    shutil.copy(extension, site / "torch")
    doctor.paths.insert(0, str(site))
    doctor.run("torch").says("torch:broken", "red", "libtorch_cpu.so", 'force-reinstall "torch>=2.11,<2.14"')


def test_the_cpu_can_be_chosen_beside_a_gpu_that_does_not_work(doctor):
    doctor.gpu(H100)
    doctor.torch("2.13.0+cpu")
    report = doctor.run("torch", VLLM_PLATFORM="cpu")
    assert report.status == 0
    report.says("torch:cpu-only", "yellow", "CPU build", "pip install")


def test_an_old_gpu_and_a_library_that_is_none(doctor):
    doctor.gpu("0, NVIDIA GeForce GTX 1080, 580.65.06, 8192, 7000, 6.1")
    doctor.torch("2.12.0+cu126", "12.6")
    (doctor.folder / "libcuda.so.1").write_text("not a library")
    report = doctor.run("gpu", LD_LIBRARY_PATH=str(doctor.folder))
    report.says("gpu:old", "red", r"GTX 1080 .*6\.1; 7\.0", "VLLM_PLATFORM=cpu")
    report.says("gpu:no-library", "red", "libcuda.so.1.*(too short|invalid)", "NVIDIA_DRIVER_CAPABILITIES=compute")
    report.says("gpu:busy", "yellow", "7000 of 8192 MiB", "query-compute-apps")


SMI = {
    "no-driver": ("echo NVIDIA-SMI has failed because it could not reach the driver; exit 9", "has failed", "modprobe"),
    "mismatch": ("echo Failed to initialize NVML: Driver/library version mismatch; exit 18", "mismatch", "reboot"),
    "no-driver (hangs)": ("sleep 30", "does not answer", "modprobe nvidia"),
}


@pytest.mark.parametrize("case", SMI)
def test_nvidia_smi_complains(doctor, case):
    script, message, remedy = SMI[case]
    doctor.command("nvidia-smi", script)
    doctor.run("gpu", "--limit", "1").says(f"gpu:{case.split()[0]}", "red", message, remedy)


def test_a_driver_that_torch_cannot_reach(doctor):
    doctor.gpu(H100)
    doctor.torch("2.13.0+cu130", "13.0")
    library = "class CDLL:\n    def __init__(self, name): pass\n"
    doctor.package("ctypes", library)  # a libcuda.so.1 that loads, whatever this machine has
    report = doctor.run("gpu")
    report.says("gpu:unreachable", "red", "H100.*is_available.* is False", "torch.cuda.init")


def test_gpus_that_are_hidden_or_not_there(doctor):
    doctor.gpu(H100)
    doctor.run("gpu", CUDA_VISIBLE_DEVICES="").says("gpu:hidden", "yellow", "hides every GPU", "unset CUDA_VIS")
    wrong = doctor.run("gpu", CUDA_VISIBLE_DEVICES="0,3")
    wrong.says("gpu:wrong-index", "red", r"'0,3'.*there are 1", "CUDA_VISIBLE_DEVICES=0")


def test_triton_has_no_compiler(doctor):
    doctor.gpu(H100)
    bin = doctor.folder / "bin"
    (bin / "python").symlink_to(sys.executable)
    missing = doctor.run("compiler", PATH=str(bin) + ":" + str(_only_sh(doctor.folder)))
    missing.says("compiler:missing", "red", "no C compiler", "pip install ziglang .*CC=")
    doctor.command("cc-broken", "echo cannot find ld; exit 1")
    broken = doctor.run("compiler", CC=str(bin / "cc-broken"))
    broken.says("compiler:broken", "red", "cc-broken.*cannot find ld", "unset CC; .*ziglang")
    doctor.command("cc-plain", "echo 'x.c:1: fatal error: Python.h: No such file'; exit 1")
    plain = doctor.run("compiler", CC=str(bin / "cc-plain"))
    plain.says("compiler:no-headers", "red", "Python.h", r"python3\.\d+-dev")


def _only_sh(folder: Path) -> Path:
    """A folder with the few commands that the fakes need, and no compiler."""
    tools = folder / "tools"
    tools.mkdir()
    for name in ("sh", "cat"):
        (tools / name).symlink_to(shutil.which(name))
    return tools


def test_without_a_gpu_no_compiler_is_needed(doctor):
    doctor.torch("2.13.0+cpu")
    report = doctor.run("compiler", PATH=str(doctor.folder))
    assert report.status == 0 and "compiler:not-needed" in report.findings


def test_other_makers_devices_and_wsl_without_a_gpu(doctor):
    doctor.command("rocm-smi", "exit 0")
    doctor.command("xpu-smi", "exit 0")
    report = doctor.run("accelerators", "system", TPU_NAME="local", WSL_DISTRO_NAME="Ubuntu")
    for code, name in (("rocm", "AMD"), ("intel", "Intel"), ("tpu", "TPU")):
        report.says(f"accelerators:{code}", "yellow", f"{name}.*CPU works", "VLLM_PLATFORM=cpu")
    report.says("system:wsl-no-gpu", "yellow", "/dev/dxg is missing", "wsl --update")


def test_several_pythons(doctor):
    doctor.command("pip", "exit 0")
    report = doctor.run("python")
    report.says("python:elsewhere", "yellow", "pip in this shell is .*/bin/pip", "activate|-m pip")
    doctor.command("pip", f"echo pip 25 from {sys.prefix}/lib/pip")  # a stand-in that leads back here
    assert "python:elsewhere" not in doctor.run("python").findings


def installed(folder: Path, summary: str, version: str) -> str:
    info = folder / f"vllm-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\nSummary: {summary}\n")
    return str(folder)


def test_the_other_project_of_the_same_name(doctor):
    doctor.paths.append(installed(doctor.folder / "a", "A high-throughput and memory-efficient engine", "0.11.0"))
    report = doctor.run("package")
    report.says(
        "package:other", "red", r"known as vLLM \(0\.11\.0\)", "pip uninstall -y vllm && .*pip install .*--no-deps"
    )


def test_our_own_package_twice(doctor):
    for place in "ab":
        doctor.paths.append(installed(doctor.folder / place, "An independent, pure-Python engine", "1.0.0"))
    doctor.run("package").says("package:twice", "yellow", "installed [2-9] times", "pip uninstall -y vllm")


def test_compiled_files_of_the_other_project_among_ours(doctor):
    shutil.copytree(ROOT / "vllm", doctor.folder / "vllm", ignore=shutil.ignore_patterns("builtin", "__pycache__"))
    (doctor.folder / "vllm" / "_C.abi3.so").touch()
    doctor.paths = [str(doctor.folder)]
    doctor.run("package").says("package:remains", "red", "_C.abi3.so", "rm -r .*vllm && .*pip install")


def test_packages_that_are_missing(doctor):
    # why: a venv without packages is a really broken one; doctor itself needs none of them.
    doctor.folder.joinpath("venv").mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", doctor.folder / "venv"], check=True)
    command = [doctor.folder / "venv/bin/python", "-P", "-m", "vllm.entrypoints.cli.main", "doctor", "--json"]
    environment = {**doctor.environment, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    report = Report(done.returncode, done.stdout)
    report.says(
        "packages:missing",
        "red",
        "transformers .*msgspec.*llguidance",
        "venv/bin/python -m pip install 'transformers>=5.17,<6'",
    )
    report.says("packages:no-compiler", "yellow", "llvmlite", "pip install .*llvmlite")
    report.says("torch:missing", "red", "not installed", "pip install")
    report.says("generate:no-torch", "red", "nothing was generated", "doctor torch")
    assert report.status == 1


def test_a_package_that_another_install_has_changed(doctor):
    for name, version in (("transformers", "4.57.1"), ("pydantic", "3.0.0")):
        info = doctor.folder / "site" / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    doctor.paths.insert(0, str(doctor.folder / "site"))
    report = doctor.run("packages")
    report.says(
        "packages:range",
        "red",
        r"transformers 4\.57\.1 .*>=5\.17,<6.*pydantic 3\.0\.0",
        "pip install 'transformers>=5.17,<6' 'pydantic",
    )
    assert report.status == 1


def test_folders_that_cannot_be_written(doctor):
    file = doctor.folder / "file"
    file.touch()
    report = doctor.run("caches", HF_HUB_CACHE=f"{file}/hub", VLLM_CACHE_ROOT="/proc/self/vllm")
    one, two = [one for one in json.loads(report.text)["findings"] if one["code"] == "read-only"]
    assert str(file) in one["message"] and one["remedy"].startswith("export HF_HUB_CACHE=/tmp")
    assert "/proc/self/vllm" in two["message"] and two["remedy"].startswith("export VLLM_CACHE_ROOT=/tmp")
    assert report.status == 0


def can_mount() -> bool:
    tool = shutil.which("unshare")
    return tool is not None and subprocess.run([tool, "-Urm", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="this machine lets nobody mount")
def test_a_full_disk_little_shared_memory_and_a_read_only_home(doctor):
    home, hub = doctor.folder / "home", doctor.folder / "hub"
    home.mkdir(), hub.mkdir()
    mounts = f"mount -t tmpfs -o size=1m x {hub}; mount -t tmpfs -o size=1m x /dev/shm; mount -t tmpfs -o ro x {home};"
    doctor.wrapper = ["unshare", "-Urm", "sh", "-c", mounts + ' exec "$@"', "sh"]
    report = doctor.run("caches", "limits", HF_HUB_CACHE=str(hub), HOME=str(home))
    report.says("caches:full", "yellow", "only 1.0 MiB free for the model cache", "HF_HUB_CACHE=")
    report.says("caches:read-only", "yellow", "vllm's cache cannot be written.*[Rr]ead-only", "VLLM_CACHE_ROOT=")
    report.says("limits:shared", "yellow", "/dev/shm has only 1.0 MiB", "--shm-size=8g")


@pytest.mark.skipif(not can_mount(), reason="this machine lets nobody mount")
def test_little_memory_and_an_old_processor(doctor):
    (doctor.folder / "meminfo").write_text("MemTotal: 2000000 kB\nMemAvailable: 300000 kB\n")
    (doctor.folder / "cpuinfo").write_text("model name : Old CPU\nflags : fpu sse sse2\n")
    mounts = "".join(f"mount --bind {doctor.folder}/{name} /proc/{name};" for name in ("meminfo", "cpuinfo"))
    doctor.wrapper = ["unshare", "-Urm", "sh", "-c", mounts + ' exec "$@"', "sh"]
    report = doctor.run("memory", "cpu")
    report.says("memory:little", "yellow", "only 293.0 MiB .*exit 137", "--memory=8g")
    report.says("cpu:no-simd", "yellow", "Old CPU has no AVX2", "lscpu")


def test_no_temporary_folder(doctor):
    doctor.wrapper = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh"]
    report = doctor.run("caches")
    assert report.status == 1
    report.says("caches:no-tmp", "red", "no temporary folder", "TMPDIR=")


def test_the_hub_the_proxy_and_the_token(doctor):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{closed.getsockname()[1]}"
        no = {"HF_HUB_OFFLINE": ""}
        hub = doctor.run("hub", **no, HF_ENDPOINT=f"http://{nowhere}", HF_TOKEN="secret with spaces")
        hub.says("hub:unreachable", "yellow", "does not answer.*folders", "unset HF_ENDPOINT")
        hub.says("hub:bad-token", "yellow", "HF_TOKEN is not of the form", "export HF_TOKEN=hf_")
        assert "secret" not in hub.text and hub.status == 0
        proxy = doctor.run("hub", **no, HTTPS_PROXY=f"http://me:secret@{nowhere}")
        proxy.says("hub:proxy", "yellow", f"HTTPS_PROXY names the proxy {nowhere}", "unset HTTPS_PROXY")
        assert "secret" not in proxy.text
    bad = doctor.run("hub", **no, HF_ENDPOINT="me:secret@hf-mirror.example")
    bad.says("hub:bad-endpoint", "yellow", "starts with https", "HF_ENDPOINT=https://hf-mirror.example")
    assert "secret" not in bad.text


def test_a_hub_that_answers(doctor):
    with socket.socket() as open_port:
        open_port.bind(("127.0.0.1", 0))
        open_port.listen()
        address = f"http://127.0.0.1:{open_port.getsockname()[1]}"
        report = doctor.run("hub", HF_HUB_OFFLINE="", HF_ENDPOINT=address, HF_TOKEN="hf_secret")
        assert "hub:fine" in report.findings and "secret" not in report.text
        report = doctor.run("hub", HF_HUB_OFFLINE="")
        assert report.status == 0


def test_a_port_that_is_taken(doctor):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        report = doctor.run("port", "--port", str(port))
    report.says("port:taken", "yellow", f"listens on port {port}", r"vllm serve --port \d+")


def test_limits_cores_and_variables(doctor):
    doctor.wrapper = ["sh", "-c", 'ulimit -n 256; ulimit -v 8000000; exec taskset -c "$0" "$@"']
    doctor.wrapper.append(str(min(os.sched_getaffinity(0))))
    build = {"MAX_JOBS": "4", "NVCC_THREADS": "2", "CMAKE_BUILD_PARALLEL_LEVEL": "1", "TORCH_CUDA_ARCH_LIST": "9.0"}
    build |= {"VLLM_TARGET_DEVICE": "empty", "VLLM_USE_PRECOMPILED": "1", "CUDA_HOME": "/usr/local/cuda"}
    build |= {"CCACHE_DIR": "/ccache", "VLLM_BUILD_CORE_ONLY": "1"}
    ours = {"VLLM_PLATFORM": "abacus", "VLLM_CPU_KVCACHE_SPACE": "much", "VLLM_LOGING_LEVEL": "INFO"}
    more = {"OMP_NUM_THREADS": "64", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    report = doctor.run("limits", "memory", "cpu", "variables", **build, **ours, **more)
    report.says("limits:files", "yellow", "only 256 files", "ulimit -n 65536")
    report.says("memory:addresses", "yellow", "ulimit -v allows 7.6 GiB", "ulimit -v unlimited")
    report.says("cpu:threads", "yellow", "OMP_NUM_THREADS=64, but 1 cores", "export OMP_NUM_THREADS=1")
    report.says("cpu:held-back", "yellow", "ONEDNN_MAX_CPU_ISA=AVX2", "unset ONEDNN_MAX_CPU_ISA")
    report.says("variables:build", "yellow", "nothing is compiled.*" + ".*".join(sorted(build)), "unset .*MAX_JOBS")
    report.says(
        "variables:unknown", "yellow", "VLLM_LOGING_LEVEL.*did you mean VLLM_LOGGING_LEVEL", "unset VLLM_LOGING"
    )
    bad = [one for one in json.loads(report.text)["findings"] if one["code"] == "bad-value"]
    assert [one["remedy"] for one in bad] == ["unset VLLM_CPU_KVCACHE_SPACE", "unset VLLM_PLATFORM"]
    assert report.status == 1


def test_threads_that_are_no_number(doctor):
    report = doctor.run("cpu", OMP_NUM_THREADS="many")
    report.says("cpu:bad-threads", "yellow", "'many'", "export OMP_NUM_THREADS=")


def test_generation_that_fails(doctor):
    doctor.package("tokenizers", "raise ImportError('undefined symbol in tokenizers')")
    report = doctor.run("generate")
    report.says("generate:failed", "red", "cpu: ImportError: undefined symbol in tokenizers", "VLLM_PLATFORM=cpu")


# why: a torch that answers doctor's few questions, and does this when the engine asks for more.
LATE = {
    "slow": ("import time; time.sleep(60)", "no ten tokens within 2 s", "--limit 600"),
    "killed": ("import os; os.kill(os.getpid(), 9)", "SIGKILL.*out of memory", "--memory=8g"),
}


@pytest.mark.parametrize("case", LATE)
def test_generation_that_never_ends_well(doctor, case):
    action, message, remedy = LATE[case]
    doctor.torch("2.13.0+cpu")
    file = doctor.folder / "site/torch/__init__.py"
    file.write_text(file.read_text() + f"def __getattr__(name): {action}\n")
    doctor.run("generate", "--limit", "2").says(f"generate:{case}", "red", message, remedy)


WRONG = [(("torhc",), "torch"), (("--limit", "0"), "--limit"), (("--port", "0"), "--port")]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_a_wrong_command_line_is_status_2(doctor, arguments, message):
    environment = {**doctor.environment, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*DOCTOR, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr
