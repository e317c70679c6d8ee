"""Memory of a GPU as the driver counts it: the plan is what is taken, nothing is asked for later, others are respected.

Each case is a process of its own, so that nothing else holds memory in it.
"""

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.gpu, pytest.mark.gpu_alone]
SHAPE = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096,
    "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "max_position_embeddings": 8192, "rope_theta": 500000.0, "rms_norm_eps": 1e-5, "hidden_act": "silu",
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
BEGIN = """
    import json, random, subprocess, sys
    def used():
        said = subprocess.run(["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"],
                              capture_output=True, text=True, check=True).stdout
        return int(said) << 20
    before = used()
    from vllm import LLM, SamplingParams, TokensPrompt
"""


def run(tmp_path: Path, program: str, *arguments: str, shape: dict[str, Any] = SHAPE) -> Any:
    """What the program prints last, as JSON."""
    (tmp_path / "config.json").write_text(json.dumps(shape))
    (tmp_path / "program.py").write_text(textwrap.dedent(BEGIN) + textwrap.dedent(program))
    ran = subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), str(tmp_path), *arguments],
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout.splitlines()[-1])


def test_nothing_is_asked_of_the_device_while_serving(tmp_path: Path) -> None:
    """An 8B shape at 0.92 of the card; random prompts, lengths, options and shared beginnings."""
    program = """
        dice = random.Random(0)
        llm = LLM(sys.argv[1], load_format="dummy", skip_tokenizer_init=True, gpu_memory_utilization=0.92,
                  max_model_len=4096, max_num_seqs=256)
        import torch
        def counts():
            s = torch.cuda.memory_stats()
            names = ("num_device_alloc", "segment.all.allocated", "reserved_bytes.all.current", "num_alloc_retries")
            return {name: s[name] for name in names}
        started, at_start = counts(), used()
        shared = [dice.randrange(3, 8000) for _ in range(1500)]
        def ask():
            prompt = shared[: dice.choice((0, 0, 700, 1500))] + [
                dice.randrange(3, 128000) for _ in range(dice.choice((1, 30, 300, 1000, 2200)))]
            fancy = dice.random() < 0.5
            params = SamplingParams(
                max_tokens=dice.randint(1, 160), temperature=dice.choice((0.0, 1.0)), ignore_eos=True,
                top_p=0.9 if fancy else 1.0, top_k=dice.choice((0, 40)) if fancy else 0,
                repetition_penalty=1.1 if fancy and dice.random() < 0.5 else 1.0,
                logit_bias={7: 2.0} if fancy and dice.random() < 0.3 else None,
                logprobs=dice.choice((None, 5)), prompt_logprobs=1 if dice.random() < 0.05 else None)
            return TokensPrompt(prompt_token_ids=prompt), params
        tokens = 0
        for many in (1, 3, 40, 400):
            prompts, params = zip(*(ask() for _ in range(many)))
            for out in llm.generate(list(prompts), list(params), use_tqdm=False):
                tokens += len(out.outputs[0].token_ids)
        plan = llm.llm_engine.assembled.plan
        slabs = llm.llm_engine.assembled.engine._executor.runner.slabs
        print(json.dumps({"started": started, "ended": counts(), "tokens": tokens, "planned": plan.memory.total,
                          "kv": plan.memory.kv, "slabs": sum(s.nbytes for s in slabs),
                          "at_start": at_start - before, "at_end": used() - before,
                          "peak": torch.cuda.max_memory_allocated(), "memory": str(plan.memory)}))
    """
    found = run(tmp_path, program)
    print(found)
    assert found["tokens"] > 10_000
    assert found["ended"] == found["started"], "the device was asked for memory after the start"
    assert abs(found["slabs"] - found["kv"]) <= 0.02 * found["kv"]
    assert abs(found["at_start"] - found["planned"]) <= 0.02 * found["planned"]
    assert abs(found["at_end"] - found["planned"]) <= 0.02 * found["planned"]


def test_another_process_is_respected_and_named(tmp_path: Path) -> None:
    program = """
        import torch
        held = [subprocess.Popen([sys.executable, "-c", "import torch; x = torch.ones(40 << 30, dtype=torch.uint8, "
                "device='cuda'); torch.cuda.synchronize(); print('here', flush=True); input()"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)]
        held[0].stdout.readline()
        given = dict(load_format="dummy", skip_tokenizer_init=True, max_model_len=4096)
        try:
            with LLM(sys.argv[1], gpu_memory_utilization=0.5, **given) as llm:
                plan = llm.llm_engine.assembled.plan
                out = llm.generate([TokensPrompt(prompt_token_ids=[5] * 30)], use_tqdm=False)
            try:
                LLM(sys.argv[1], num_gpu_blocks_override=13000, **given)
                refusal = ""
            except ValueError as error:
                refusal = str(error)
        finally:
            held[0].communicate("")
        total = torch.cuda.mem_get_info()[1]
        print(json.dumps({"planned": plan.memory.total, "total": total, "pid": held[0].pid, "refusal": refusal,
                          "why": [row for row in plan.choices if row[0] == "KV cache"][0][2]}))
    """
    found = run(tmp_path, program)
    print(found)
    assert found["planned"] <= 0.5 * found["total"] - (40 << 30)
    for said in (found["why"], found["refusal"]):
        assert "others hold" in said and (f"pid {found['pid']}" in said or "does not show" in said), said
