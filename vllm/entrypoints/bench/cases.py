"""The cases of the yardstick: batches of random prompts, each run several times, the best kept.

    b1 b32 b128 b256   the time of a decode step: (whole run - the same with one output token) / (outputs - 1)
    prefill            64 prompts of 2,048 tokens, one output token each
    mixed              512 x (1,024 in, 128 out)
    small              256 requests of 100 to 1,024 tokens in and out
    sharegpt           1,000 requests with lengths as in conversations

Does not know: floors, other engines. Called by: engine.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

from vllm.entrypoints.bench.offline import StepMeter, token_prompts

if TYPE_CHECKING:
    from vllm.entrypoints.llm import LLM

CASES = ("b1", "b32", "b128", "b256", "prefill", "mixed", "small", "sharegpt")
STEPS = {"b1": (1, 128), "b32": (32, 1024), "b128": (128, 1024), "b256": (256, 1024)}
"""Decode cases: (sequences, prompt tokens)."""
STEP_OUTPUTS, PREFILL = 256, (64, 2048)
_VOCAB = 8000


class Cases:
    """Runs cases on one engine. `scale` shrinks lengths and, but for decode batches, counts."""

    def __init__(self, llm: LLM, vocab: int, scale: float = 1.0) -> None:
        self.llm, self.vocab, self.scale = llm, vocab, scale
        self._rng = random.Random(0)

    def sized(self, number: int, least: int = 1) -> int:
        """`number` at this scale."""
        return max(least, round(number * self.scale))

    def warm_up(self) -> None:
        """Every kernel and graph once, so that no case pays for another."""
        for num, length, out in ((1, 16, 4), (64, 256, 32), (256, 64, 8)):
            count = self.sized(num) if num > 1 else 1
            self._go([self.sized(length)] * count, [self.sized(out, 2)] * count)

    def run(self, case: str) -> dict[str, Any]:
        """The figures of a case, and where the time of its steps went."""
        with StepMeter(self.llm) as meter:
            figures = self._step_case(*STEPS[case]) if case in STEPS else self._whole_case(case)
        return {"case": case, **figures, **meter.figures()}

    def _step_case(self, num: int, length: int) -> dict[str, Any]:
        # why 16: the difference of two runs of a few tokens is noise, and may be less than nothing
        lengths, outs = [self.sized(length)] * num, self.sized(STEP_OUTPUTS, 16)
        one = min(self._go(lengths, [1] * num)[0] for _ in range(3))
        long = min(self._go(lengths, [outs] * num)[0] for _ in range(3))
        step = (long - one) / (outs - 1)
        return {
            "step_ms": round(step * 1e3, 4),
            "dec_tok_s": round(num / step, 1),
            "e2e_tok_s": round(num * outs / long, 1),
            "prefill_s": round(one, 4),
            "ctx": lengths[0],
            "out": outs,
        }

    def _whole_case(self, case: str) -> dict[str, Any]:
        runs = [self._go(*self._lengths(case)) for _ in range(3 if case == "prefill" else 2)]
        seconds, num_out, num_in = min(runs)
        return {
            "s": round(seconds, 4),
            "out_tok_s": round(num_out / seconds, 1),
            "tot_tok_s": round((num_out + num_in) / seconds, 1),
            "out": num_out,
            "inp": num_in,
        }

    def _lengths(self, case: str) -> tuple[list[int], list[int]]:
        """(prompt lengths, output lengths)"""
        if case == "prefill":
            num, length = self.sized(PREFILL[0]), self.sized(PREFILL[1])
            return [length] * num, [1] * num
        if case == "mixed":
            num = self.sized(512)
            return [self.sized(1024)] * num, [self.sized(128)] * num
        if case == "small":
            low, high, num = self.sized(100), self.sized(1024), self.sized(256)
            pairs = [(self._rng.randint(low, high), self._rng.randint(low, high)) for _ in range(num)]
        else:
            rng = random.Random(1)
            ins = [max(4, min(2048, int(rng.lognormvariate(4.6, 1.2)))) for _ in range(1000)]
            outs = [max(4, min(1024, int(rng.lognormvariate(4.9, 0.9)))) for _ in range(1000)]
            pairs = [(self.sized(i), self.sized(o)) for i, o in zip(ins, outs, strict=True)][: self.sized(1000)]
        return [i for i, _ in pairs], [o for _, o in pairs]

    def _go(self, lengths: list[int], outs: list[int]) -> tuple[float, int, int]:
        """(seconds, output tokens, prompt tokens) of one batch at temperature 1, no answer cut short."""
        from vllm.sampling_params import SamplingParams

        prompts = token_prompts(self._rng, lengths, min(_VOCAB, self.vocab))
        params = [SamplingParams(temperature=1.0, ignore_eos=True, max_tokens=o, min_tokens=o) for o in outs]
        began = time.perf_counter()
        outputs = self.llm.generate(prompts, params, use_tqdm=False)
        seconds = time.perf_counter() - began
        num = sum(len(output.outputs[0].token_ids) for output in outputs)
        assert num == sum(outs), f"{num} tokens in place of {sum(outs)}"
        return seconds, num, sum(lengths)
