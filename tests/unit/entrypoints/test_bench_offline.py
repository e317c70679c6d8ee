"""The measurements that run an engine, on the built-in model and tiny sizes: what they print and what they write."""

import json

import pytest

from vllm.entrypoints.bench.recorded import recorded_start
from vllm.entrypoints.bench.startup import table
from vllm.entrypoints.cli.main import main

TINY = ["--load-format", "dummy", "--max-model-len", "256"]


def test_latency(tmp_path, capsys):
    file = tmp_path / "latency.json"
    sizes = [
        "--input-len",
        "4",
        "--output-len",
        "3",
        "--batch-size",
        "2",
        "--num-iters",
        "3",
        "--num-iters-warmup",
        "1",
    ]
    assert main(["bench", "latency", *TINY, *sizes, "--output-json", str(file)]) == 0
    got = json.loads(file.read_text())
    assert set(got) == {"avg_latency", "latencies", "percentiles"}
    assert len(got["latencies"]) == 3 and got["avg_latency"] == pytest.approx(sum(got["latencies"]) / 3)
    assert list(got["percentiles"]) == ["10", "25", "50", "75", "90", "99"]
    assert got["percentiles"]["50"] == sorted(got["latencies"])[1]
    assert f"Avg latency: {got['avg_latency']} seconds" in capsys.readouterr().out


def test_throughput_of_random_prompts(tmp_path, capsys):
    file = tmp_path / "throughput.json"
    sizes = ["--input-len", "8", "--output-len", "4", "--num-prompts", "5"]
    assert main(["bench", "throughput", *TINY, *sizes, "--output-json", str(file)]) == 0
    got = json.loads(file.read_text())
    assert (got["num_requests"], got["total_num_tokens"]) == (5, 5 * 12)
    assert got["tokens_per_second"] == pytest.approx(60 / got["elapsed_time"])
    printed = capsys.readouterr().out
    assert "Throughput: " in printed and "Total num output tokens:  20" in printed


def test_throughput_of_conversations(tmp_path, capsys):
    talk = [{"value": "What is the capital of France, and why?"}, {"value": "Paris, for a long time already."}]
    file = tmp_path / "talks.json"
    file.write_text(json.dumps([{"conversations": talk}] * 3))
    flags = ["--dataset-name", "sharegpt", "--dataset-path", str(file), "--output-len", "5"]
    assert main(["bench", "throughput", *TINY, *flags]) == 0
    assert "Total num output tokens:  15" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["latency", "--num-iters", "0"], "num_iters"),
        (["throughput", "--num-prompts", "0"], "num_prompts"),
        (["latency", "--input-len", "300"], "prompt"),
        (["throughput", "--random-range-ratio", "1"], "random_range_ratio"),
    ],
)
def test_bad_flags_are_named(capsys, words, named):
    assert main(["bench", *words, *TINY]) == 2
    assert named in capsys.readouterr().err


def test_startup_names_every_second(tmp_path, capsys):
    file, ledger = tmp_path / "startup.json", tmp_path / "ledger.jsonl"
    files = ["--output-json", str(file), "--ledger", str(ledger)]
    assert main(["bench", "startup", *TINY, "--num-iters-warm", "0", *files]) == 0
    got = json.loads(file.read_text())
    stages = got["stages"]["cold"]
    named = ["python", "import", "config", "planning", "device", "torch", "weights", "kernels", "other", "first"]
    assert list(stages) == named
    assert all(seconds > 0 for seconds in stages.values())
    assert got["avg_cold_startup_time"] == pytest.approx(sum(stages.values()))
    assert got["avg_warm_startup_time"] is None and got["warm_startup_times"] == []
    printed = capsys.readouterr().out
    assert "import torch and kernels" in printed and "ready" in printed and "vLLM" not in printed
    row = json.loads(ledger.read_text())
    assert (row["benchmark"], row["model"], row["case"], row["kernels"]) == ("engine", "builtin", "start", "cold")
    assert 0 < row["import_s"] < row["ready_s"] < row["first_s"] and row["machine"] and row["commit"]


def test_a_start_beside_the_one_that_was_recorded():
    theirs = recorded_start("Llama-3.1-8B", "NVIDIA H200")
    shown = table({"cold": {"python": 0.4, "torch": 5.34, "first": 7.0}, "warm": {"torch": 3.71, "first": 1.0}}, theirs)
    rows = {line[:26].strip(): line[28:].split() for line in shown.splitlines()}
    assert rows["vLLM 0.25.1, measured"] == ["57.400", "37.100"] and rows["times as fast"] == ["10.00", "10.00"]
    assert recorded_start("Llama-3.1-8B", "NVIDIA A100") == {} and recorded_start("builtin", "NVIDIA H200") == {}


def test_startup_passes_on_why_an_engine_does_not_start(capsys):
    assert main(["bench", "startup", "--model", "/nowhere/at/all", "--num-iters-warm", "0"]) == 2
    assert "/nowhere/at/all" in capsys.readouterr().err
