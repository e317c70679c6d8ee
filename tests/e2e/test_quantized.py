"""The built-in model says in 8 bits what it says in full."""

import pytest

from vllm import LLM, SamplingParams

ASKED = [
    *(f"What is the capital of {land}?" for land in ("France", "Japan", "Peru", "Kenya", "China")),
    *(f"What is {a} + {b}?" for a, b in ((12, 30), (8, 9), (71, 18))),
]


def answers(**options: str) -> list[str]:
    messages = [[{"role": "user", "content": question}] for question in ASKED]
    with LLM(max_model_len=256, **options) as llm:
        outputs = llm.chat(messages, SamplingParams(temperature=0, max_tokens=16), use_tqdm=False)
        memory = llm.llm_engine.assembled.plan.memory
    return [*(out.outputs[0].text for out in outputs), str(memory.weights)]


@pytest.mark.parametrize(
    "options", [{"quantization": "int8"}, {"quantization": "fp8", "kv_cache_dtype": "fp8"}], ids=["int8", "fp8"]
)
def test_answers_stay(options: dict[str, str]) -> None:
    *full, before = answers()
    *small, after = answers(**options)
    assert small == full and "Paris" in small[0] and "42" in small[5]
    assert int(after) < 0.75 * int(before)
