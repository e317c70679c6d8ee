"""The program that compiles a network's kernels without a GPU, as an engine starts it."""

import json
import os
import subprocess
import sys

import pytest

from tests.unit.executor.test_processes import CONFIG
from vllm.executor.frames import Kind, Rehearsal, frame, pack_kv
from vllm.kv.groups import make_kv_plan as blocks_of
from vllm.parts.hf import HFConfig
from vllm.planning.describe import describe
from vllm.protocol.plan import WorkerPlan

pytest.importorskip("triton")
pytestmark = pytest.mark.gpu_too
WIDE = {**CONFIG, "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "head_dim": 64}


def compiled(folder, **changes):
    """Names of the kernels in the cache behind a process that was told of the network; its mark."""
    described = describe(HFConfig(WIDE))
    kv = blocks_of(described.decoder.kv_kinds(), "bfloat16", num_blocks=8, block_size=64)
    given = {
        "device": "cuda",
        "dtype": "bfloat16",
        "max_num_seqs": 2,
        "max_num_batched_tokens": 64,
        "max_model_len": 64,
    }
    plan = WorkerPlan(**{**given, **changes})
    mark = folder / "cache" / "mark"
    message = Rehearsal(WIDE, plan, pack_kv(kv), (9, 0, 132), str(mark), 2)
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(folder / "cache"), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    program = [sys.executable, "-m", "vllm.executor.precompile_main"]
    done = subprocess.run(
        program, input=frame(Kind.REHEARSAL, message), env=environment, capture_output=True, timeout=240
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    files = [path for path in (folder / "cache").glob("*/*.json") if not path.name.startswith("__grp__")]
    found = [json.loads(path.read_text()) for path in files]
    assert all(one["target"]["arch"] == 90 for one in found if "target" in one)
    return {one["name"] for one in found if "name" in one}, mark


def test_kernels_of_a_network(tmp_path):
    names, mark = compiled(tmp_path)
    assert {"_few", "_attend", "_gather", "_best", "_prefill", "_norm", "_write", "_turns"} <= names, names
    assert mark.exists()


def test_a_pipe_that_closes_ends_it(tmp_path):
    program = [sys.executable, "-m", "vllm.executor.precompile_main"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("TRITON_INTERPRET", None)
    assert subprocess.run(program, input=b"", env=environment, timeout=60).returncode == 1
