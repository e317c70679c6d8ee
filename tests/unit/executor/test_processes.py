"""Workers in processes of their own: two ranks say what one says, and a rank that fails says why."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from safetensors.torch import save_file

from tests.unit.worker.helpers import Host, make_worker_plan, random_weights
from tests.unit.worker.test_ahead import requests_of, run
from vllm.engine.core import Engine
from vllm.errors import EngineDeadError
from vllm.executor.frames import FrameReader, Kind, frame, pack_kv, unpack_kv, write
from vllm.executor.local import LocalExecutor
from vllm.executor.processes import ProcessExecutor
from vllm.kv.groups import make_kv_plan
from vllm.parts.hf import HFConfig
from vllm.planning.describe import describe
from vllm.protocol.plan import LoadPlan, SchedulerPlan
from vllm.sampling_params import SamplingParams

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 97,  # odd, so that two ranks pad it
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}


def _save(folder, config):
    """A checkpoint of random weights under transformers' names."""
    decoder = describe(HFConfig(config)).decoder
    ours, out, d = random_weights(decoder), {}, 8
    kv = config["num_key_value_heads"] * d
    for name, x in ours.items():
        if name.startswith("layers."):
            _, i, rest = name.split(".", 2)
            at = f"model.layers.{i}"
            if rest == "mixer.qkv.weight":
                parts = x.split((config["num_attention_heads"] * d, kv, kv))
                out |= {f"{at}.self_attn.{c}_proj.weight": p for c, p in zip("qkv", parts, strict=True)}
            elif rest == "ffn.gate_up.weight":
                out |= {f"{at}.mlp.{c}_proj.weight": p for c, p in zip(("gate", "up"), x.chunk(2), strict=True)}
            else:
                to = {"mixer.o": "self_attn.o_proj", "ffn.down": "mlp.down_proj", "pre_mixer": "input_layernorm"}
                stem = rest.removesuffix(".weight")
                out[f"{at}.{to.get(stem, 'post_attention_layernorm')}.weight"] = x
        else:
            to = {"embed.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight"}
            out[to.get(name, "lm_head.weight")] = x
    save_file({k: v.contiguous() for k, v in out.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def _run(executor, kv_plan):
    """Chunked, mixed and sampled work; everything that came back."""
    host = Host(executor, kv_plan)
    host.open(0, list(range(1, 12)))
    host.open(1, [5, 6, 7], SamplingParams(temperature=1.0, logprobs=2, prompt_logprobs=1, max_tokens=30), seed=3)
    results = [host.step((0, 4), (1, 3)), host.step((0, 7), (1, 1))]
    results += [host.step((0, 1), (1, 1)) for _ in range(8)]
    host.open(2, [9] * 20, SamplingParams(temperature=0.8, top_p=0.9, max_tokens=30), seed=4)
    host.close(0)
    results += [host.step((1, 1), (2, 20))]
    results += [host.step((1, 1), (2, 1)) for _ in range(5)]
    return results


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return _save(tmp_path_factory.mktemp("model"), CONFIG)


@pytest.fixture(scope="module")
def alone(folder):
    described = describe(HFConfig(CONFIG))
    kv_plan = make_kv_plan(described.decoder.kv_kinds(), "float32", num_blocks=40, block_size=4)
    load = LoadPlan(folder, "auto", 0)
    executor = LocalExecutor(described.decoder, described.weights, make_worker_plan(), kv_plan, load)
    return kv_plan, load, _run(executor, kv_plan)


@pytest.fixture(scope="module")
def pair(alone):
    kv_plan, load, _ = alone
    executor = ProcessExecutor(make_worker_plan(tp_size=2, num_threads=1), kv_plan, load, CONFIG)
    yield executor
    executor.close()


def _check_same(got, expected):
    """The same for every sequence; a runner may name those of a step in an order of its own."""
    for mine, other in zip(got, expected, strict=True):
        at, there = ({seq: n for n, seq in enumerate(one.seq_ids)} for one in (mine, other))
        assert at.keys() == there.keys()
        for seq, n in at.items():
            assert mine.tokens[n] == other.tokens[there[seq]]
            told, expected_ones = mine.logprobs.get(n, []), other.logprobs.get(there[seq], [])
            for a, b in zip(told, expected_ones, strict=True):
                assert a.ids == b.ids
                assert a.values == pytest.approx(b.values, abs=1e-3)
        assert mine.prompt_logprobs.keys() == other.prompt_logprobs.keys()


def test_two_tensor_ranks_say_what_one_says(pair, alone):
    _check_same(_run(pair, alone[0]), alone[2])


BEHIND = """
import vllm.platforms.cpu
vllm.platforms.cpu.PLATFORM.runs_behind.__func__.__code__ = (lambda self: True).__code__
"""
"""Read by every Python that starts with its folder on the path: there a CPU is a device that runs behind."""


def test_two_ranks_whose_steps_run_ahead_say_what_one_says(alone, folder, tmp_path, monkeypatch):
    """The engine has two plans in flight, idle ranks record what they may, and all of them choose the same tokens."""
    (tmp_path / "sitecustomize.py").write_text(BEHIND)
    monkeypatch.syspath_prepend(str(tmp_path))
    kv_plan, load, expected = alone
    plan = make_worker_plan(tp_size=2, num_threads=1, kernels={})
    executor = ProcessExecutor(plan, kv_plan, load, CONFIG)
    try:
        pieces = [executor.prepare() for _ in range(3)]
        assert all(piece is not None for piece in pieces), "these ranks have sizes of steps to make ready"
        _check_same(_run(executor, kv_plan), expected)
        requests = [r for r in requests_of(0, plain=False) if not r.sampling.logits_processors]
        engine = Engine(SchedulerPlan(6, 24, 128, run_ahead=1), kv_plan, executor)
        said = run(engine, requests)
        assert engine.kv.num_hit > 0
    finally:
        executor.close()
    described = describe(HFConfig(CONFIG))
    one = LocalExecutor(described.decoder, described.weights, replace(plan, tp_size=1), kv_plan, load)
    assert run(Engine(SchedulerPlan(16, 512, 128), kv_plan, one), requests) == said


def test_functions_cannot_travel_and_fail_alone(pair, alone):
    host = Host(pair, alone[0])
    host.open(8, [1, 2, 3], SamplingParams(temperature=0, logits_processors=[lambda ids, line: line]))
    host.open(9, [1, 2, 3])
    result = host.step((8, 3), (9, 3))
    assert [f[:2] for f in result.failed] == [(108, 0)]
    assert "use one device" in result.failed[0][2]
    assert result.tokens[0] == [] and len(result.tokens[1]) == 1


def test_a_killed_rank_ends_all_and_is_named(pair, alone):
    others = list(pair._ranks)
    os.kill(others[1].pid, signal.SIGKILL)
    host = Host(pair, alone[0])
    host.open(10, [1, 2, 3])
    with pytest.raises(EngineDeadError, match=r"worker 1 of 2 was killed by signal 9"):
        host.step((10, 3))
    assert others[0].wait(10) != 0
    with pytest.raises(EngineDeadError, match="worker 1 of 2"):
        pair.collect()
    pair.close()
    pair.close()


@pytest.mark.parametrize(("tp", "pp"), [(1, 2), pytest.param(2, 2, marks=pytest.mark.slow)])
def test_pipeline_stages_say_what_one_says(alone, tp, pp):
    kv_plan, load, expected = alone
    executor = ProcessExecutor(make_worker_plan(tp_size=tp, pp_size=pp, num_threads=1), kv_plan, load, CONFIG)
    try:
        _check_same(_run(executor, kv_plan), expected)
    finally:
        executor.close()


@pytest.mark.slow
def test_more_ranks_than_kv_heads(tmp_path):
    config = {**CONFIG, "num_key_value_heads": 1, "num_hidden_layers": 1}
    load = LoadPlan(_save(tmp_path, config), "auto", 0)
    described = describe(HFConfig(config))
    kv_plan = make_kv_plan(described.decoder.kv_kinds(), "float32", num_blocks=40, block_size=4)
    one = LocalExecutor(described.decoder, described.weights, make_worker_plan(), kv_plan, load)
    two = ProcessExecutor(make_worker_plan(tp_size=2, num_threads=1), kv_plan, load, config)
    try:
        assert [r.tokens for r in _run(two, kv_plan)] == [r.tokens for r in _run(one, kv_plan)]
    finally:
        two.close()


def test_a_rank_that_cannot_start_says_why(alone, tmp_path):
    plan, load = make_worker_plan(tp_size=2, num_threads=1), LoadPlan(str(tmp_path), "auto", 0)
    with pytest.raises(EngineDeadError, match=r"worker \d of 2 failed: Model\w+Error: "):
        ProcessExecutor(plan, alone[0], load, CONFIG)


def test_workers_end_with_their_parent(alone, tmp_path):
    kv_plan, load, _ = alone
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys, json\n"
        "from vllm.executor.frames import unpack_kv\n"
        "from vllm.executor.processes import ProcessExecutor\n"
        "from vllm.protocol.plan import LoadPlan\n"
        "from tests.unit.worker.helpers import make_worker_plan\n"
        "path, kv, config = json.loads(sys.argv[1])\n"
        "plan = make_worker_plan(tp_size=2, num_threads=1)\n"
        "executor = ProcessExecutor(plan, unpack_kv(kv), LoadPlan(path, 'auto', 0), config)\n"
        "print(*(p.pid for p in executor._ranks), flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    argument = json.dumps([load.path, pack_kv(kv_plan), CONFIG])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
    done = subprocess.run([sys.executable, str(script), argument], stdout=subprocess.PIPE, env=env, check=False)
    pids = [int(p) for p in done.stdout.split()]
    assert len(pids) == 2
    deadline = time.monotonic() + 10
    while any(_lives(pid) for pid in pids):
        assert time.monotonic() < deadline, "workers outlived their parent"
        time.sleep(0.05)


def _lives(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_frames_survive_any_cut():
    ours, theirs = os.pipe()
    data = b"".join(frame(Kind.FAILED, "x" * n) for n in (0, 1, 300, 70_000))
    reader, got = FrameReader(ours), []
    for i in range(0, len(data), 997):
        write(theirs, data[i : i + 997])
        assert reader.feed()
        got.extend(reader.frames())
    os.close(theirs)
    assert not reader.feed()
    os.close(ours)
    assert [len(m) for _, m in got] == [0, 1, 300, 70_000]


def test_a_cache_plan_travels(alone):
    kv_plan, _, _ = alone
    assert unpack_kv(json.loads(json.dumps(pack_kv(kv_plan)))) == kv_plan
