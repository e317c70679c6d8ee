"""Ten tokens from the built-in model on the device that the environment chooses, told as one line of JSON.

For: the last check of `vllm doctor`, which runs this in a child process. Called by: vllm/doctor/checks/generate.py.
"""

import json
import time

from vllm import LLM, SamplingParams

MARK = "vllm-doctor-trial:"
PROMPT, EXPECTED = "The president of the United States is", "the head of state"


def main() -> None:
    """Start, generate greedily, print."""
    began = time.monotonic()
    with LLM(max_model_len=64, max_num_seqs=1) as llm:
        started = time.monotonic()
        params = SamplingParams(temperature=0, max_tokens=10, ignore_eos=True)
        output = llm.generate(PROMPT, params, use_tqdm=False)[0].outputs[0]
        ended = time.monotonic()
        worker = llm.llm_engine.assembled.plan.worker
        told = {"ran": str(worker.device).partition(":")[0], "count": len(output.token_ids), "text": output.text}
    told |= {"start": started - began, "seconds": ended - started}
    told["expected"] = len(output.token_ids) == 10 and EXPECTED in output.text
    print(MARK + json.dumps(told))
