"""The measurements that run an engine, on the built-in model and tiny sizes: what they print and what they write."""

import json

import pytest

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
    file = tmp_path / "startup.json"
    assert main(["bench", "startup", *TINY, "--num-iters-warm", "0", "--output-json", str(file)]) == 0
    got = json.loads(file.read_text())
    stages = got["stages"]["cold"]
    assert list(stages) == ["python", "import", "config", "planning", "torch", "weights", "kernels", "other", "first"]
    assert all(seconds > 0 for seconds in stages.values())
    assert got["avg_cold_startup_time"] == pytest.approx(sum(stages.values()))
    assert got["avg_warm_startup_time"] is None and got["warm_startup_times"] == []
    printed = capsys.readouterr().out
    assert "import torch and kernels" in printed and "ready" in printed


def test_startup_passes_on_why_an_engine_does_not_start(capsys):
    assert main(["bench", "startup", "--model", "/nowhere/at/all", "--num-iters-warm", "0"]) == 2
    assert "/nowhere/at/all" in capsys.readouterr().err
