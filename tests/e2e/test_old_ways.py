"""The ways in which people installed the other project work here as they are written, each in a clean environment."""

import os
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.clean_env import LEFT_OUT, Env, checkout, clean_env, needed

pytestmark = pytest.mark.slow  # made in `make e2e`
GENERATES = (
    "import vllm, sys; llm = vllm.LLM(); out = llm.generate('The capital of France is')[0].outputs[0].text; "
    "print(vllm.__file__, repr(out)); sys.exit('Paris' not in out)"
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkout(tmp_path_factory.mktemp("checkout") / "tree")


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, tree]
    subprocess.run(command, check=True, capture_output=True)
    (found,) = folder.glob("vllm-*-py3-none-any.whl")
    return found


def torch_of(env: Env, cwd: Path) -> str:
    return env.run(env.python, "-c", "import torch; print(torch.__version__, torch.__file__)", cwd=cwd)


def test_existing_torch_in_one_sequence(tree: Path, tmp_path: Path) -> None:
    env = clean_env(tmp_path / "env")
    before = torch_of(env, tmp_path)
    sequence = (
        "python use_existing_torch.py && python -m pip install -r requirements-build.txt && "
        "python -m pip install -e . --no-build-isolation"
    )
    said = env.run("sh", "-c", sequence, cwd=tree)
    assert "will be kept. Nothing had to be changed" in said and "Collecting torch" not in said
    assert torch_of(env, tmp_path) == before
    assert str(tree) in env.run(env.python, "-c", GENERATES, cwd=tmp_path)


def test_a_torch_out_of_range_is_kept_too(tmp_path: Path) -> None:
    env, tree = clean_env(tmp_path / "env", without=("torch-",)), checkout(tmp_path / "tree")
    metadata = env.site / "torch-2.14.0.dev20261101+cpu.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.14.0.dev20261101+cpu\n")
    untouched = (tree / "pyproject.toml").read_text()
    assert "the line is off in pyproject.toml" in env.run(env.python, "use_existing_torch.py", cwd=tree)
    said = env.pip("install", "-e", ".", cwd=tree)
    assert "Collecting torch" not in said and metadata.is_dir()
    env.run(env.python, "-c", "import vllm", cwd=tmp_path)
    env.run(env.python, "use_existing_torch.py", "--undo", cwd=tree)
    assert (tree / "pyproject.toml").read_text() == untouched


def test_python_only_dev_and_back(tmp_path: Path, wheel: Path) -> None:
    env, tree = clean_env(tmp_path / "env"), checkout(tmp_path / "tree")
    ask = (env.python, "-c", "import vllm; print(vllm.__file__, getattr(vllm, 'MARK', None))")
    assert "no vllm is installed" in env.run(env.python, "python_only_dev.py", cwd=tree, rc=1)
    env.pip("install", "--no-index", wheel, cwd=tmp_path)
    before = sorted(path.name for path in env.site.iterdir())
    assert "development mode is not on" in env.run(env.python, "python_only_dev.py", "-q", cwd=tree, rc=1)
    env.run(env.python, "python_only_dev.py", cwd=tree)
    with (tree / "vllm" / "__init__.py").open("a") as file:
        file.write("\nMARK = 'edited'\n")
    assert env.run(*ask, cwd=tmp_path).split() == [str(tree / "vllm" / "__init__.py"), "edited"]
    assert "Already on" in env.run(env.python, "python_only_dev.py", cwd=tree)
    env.run("vllm", "--version", cwd=tmp_path)
    env.run(env.python, "python_only_dev.py", "--quit-dev", cwd=tree)
    assert env.run(*ask, cwd=tmp_path).split() == [str(env.site / "vllm" / "__init__.py"), "None"]
    assert sorted(path.name for path in env.site.iterdir()) == before


def test_python_only_dev_leaves_the_other_project_alone(tree: Path, tmp_path: Path) -> None:
    env = clean_env(tmp_path / "env")
    other = env.site / "vllm-0.11.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.11.0\nSummary: A serving engine\n")
    assert "another project of that name" in env.run(env.python, "python_only_dev.py", cwd=tree, rc=1)


@pytest.mark.parametrize(
    "variables",
    [
        {"VLLM_TARGET_DEVICE": "empty"},
        {"VLLM_TARGET_DEVICE": "cpu", "CMAKE_GENERATOR": "Ninja", "CCACHE_DIR": "/nonexistent", "USE_CCACHE": "1"},
        {"MAX_JOBS": "4", "VLLM_USE_PRECOMPILED": "1", "CUDA_HOME": "/nonexistent", "TORCH_CUDA_ARCH_LIST": "9.0"},
    ],
    ids=lambda variables: "+".join(variables),
)
def test_variables_of_a_build_do_no_harm(variables: dict[str, str], tree: Path, tmp_path: Path) -> None:
    env = clean_env(tmp_path / "env")
    env.pip("install", "-e", ".", cwd=tree, env=variables)
    assert str(tree) in env.run(env.python, "-c", GENERATES, cwd=tmp_path, env=variables)


def test_no_deps_leaves_torch_alone(wheel: Path, tmp_path: Path) -> None:
    env = clean_env(tmp_path / "env")
    before = torch_of(env, tmp_path)
    assert "Successfully installed vllm" in env.pip("install", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    env.pip("install", "--force-reinstall", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    assert torch_of(env, tmp_path) == before
    assert str(env.site) in env.run(env.python, "-c", GENERATES, cwd=tmp_path)


def test_uv_as_it_is_written(tree: Path, tmp_path: Path) -> None:
    """In an environment of uv's own, with every dependency from the index; torch as it is here, lest it be 3 GB."""
    uv, env = needed("uv"), Env(tmp_path / "env")
    (tmp_path / "here.txt").write_text(f"torch=={version('torch')}\n")
    variables = {"VIRTUAL_ENV": str(env.prefix), "UV_CONSTRAINT": str(tmp_path / "here.txt")}
    variables["UV_FIND_LINKS"] = os.environ.get("PIP_FIND_LINKS", "")
    env.run(uv, "venv", "--python", sys.executable, env.prefix, cwd=tmp_path)
    for _ in range(2):
        env.run(uv, *["pip", "install", "-e", ".", "--force-reinstall"], cwd=tree, env=variables)
    assert str(tree) in env.run(env.python, "-c", GENERATES, cwd=tmp_path)


def test_uv_without_dependencies(tree: Path, tmp_path: Path) -> None:
    """With --no-deps torch is left alone."""
    env = clean_env(tmp_path / "env")
    variables = {"VIRTUAL_ENV": str(env.prefix)}
    for _ in range(2):
        env.run(needed("uv"), *["pip", "install", "-e", ".", "--force-reinstall", "--no-deps"], cwd=tree, env=variables)
    assert str(tree) in env.run(env.python, "-c", GENERATES, cwd=tmp_path)


def test_what_people_run_to_see_that_it_worked(wheel: Path, tree: Path, tmp_path: Path) -> None:
    env = clean_env(tmp_path / "env")
    env.pip("install", "--no-index", wheel, cwd=tmp_path)
    verify = (
        "import torch, vllm; print(torch.__version__, torch.version.cuda, torch.cuda.is_available(), vllm.__version__)"
    )
    assert "False" in env.run(env.python, "-c", verify, cwd=tmp_path)
    said = env.run(env.python, tree / "examples" / "offline_inference.py", cwd=tmp_path)
    assert said.count("Generated text:") == 4


def conda_like(prefix: Path) -> Env:
    """An environment as conda makes them: a Python of its own with its libraries in its own prefix, no pyvenv.cfg."""
    env = Env(prefix)
    name, base = f"python{sys.version_info.major}.{sys.version_info.minor}", Path(sys.base_prefix)
    env.site.mkdir(parents=True)
    (prefix / "bin").mkdir()
    (prefix / "conda-meta").mkdir()
    (prefix / "conda-meta" / "history").write_text("==> 2026-11-21 00:00:00 <==\n# cmd: conda create -n vllm python\n")
    shutil.copy(Path(sys.base_prefix) / "bin" / name, prefix / "bin" / name)
    for other in ("python", "python3"):
        (prefix / "bin" / other).symlink_to(name)
    for library in Path(sysconfig.get_config_var("LIBDIR")).glob("libpython*"):
        shutil.copy(library, prefix / "lib")
    for item in (base / "lib" / name).iterdir():
        if item.name != "site-packages":
            (prefix / "lib" / name / item.name).symlink_to(item)
    for item in Path(sysconfig.get_path("purelib")).iterdir():
        if not item.name.startswith(LEFT_OUT) and item.suffix != ".pth":
            (env.site / item.name).symlink_to(item)
    return env


def test_an_environment_of_condas_kind(wheel: Path, tmp_path: Path) -> None:
    """conda itself cannot be had from the package indexes; its environments are folders like this, and variables."""
    env = conda_like(tmp_path / "miniconda3" / "envs" / "vllm")
    variables = {
        "CONDA_PREFIX": str(env.prefix),
        "CONDA_DEFAULT_ENV": "vllm",
        "CONDA_SHLVL": "2",
        "CONDA_EXE": str(tmp_path / "miniconda3" / "bin" / "conda"),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, [str(env.prefix / "lib"), os.environ.get("LD_LIBRARY_PATH")])),
        "OMP_NUM_THREADS": "1",
    }
    where = "import sys; print(sys.prefix, sys.prefix == sys.base_prefix)"
    assert env.run(env.python, "-c", where, cwd=tmp_path, env=variables).split() == [str(env.prefix), "True"]
    before = env.run(env.python, "-c", "import torch; print(torch.__version__)", cwd=tmp_path, env=variables)
    env.pip("install", "--no-index", wheel, cwd=tmp_path, env=variables)
    assert env.run(env.python, "-c", "import torch; print(torch.__version__)", cwd=tmp_path, env=variables) == before
    assert str(env.site) in env.run(env.python, "-c", GENERATES, cwd=tmp_path, env=variables)
    checks = [str(env.prefix / "bin" / "vllm"), "doctor", "python", "package", "packages", "torch"]
    said = env.run(*checks, cwd=tmp_path, env=variables)
    assert str(env.prefix) in said and "red " not in said and "system's own Python" not in said
