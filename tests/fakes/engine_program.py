"""An engine process without torch: fingerprints in place of a network, and requests that kill it.

A prompt that begins with CRASH ends the process by a signal from inside, one with RAISE makes the executor raise; one
with LATER crashes when it is computed with three tokens of output behind it. BUSY computes for four seconds,
ASLEEP never ends. It gives four signs of life a second, so that tests of silence need not wait long.
"""

import os
import signal
import sys
import threading
import time

from tests.fakes.fingerprint import VOCAB, FingerprintExecutor
from vllm.engine.core import Engine
from vllm.engine.wire import Ready
from vllm.entrypoints import engine_main
from vllm.entrypoints.engine_main import Fragile, longest, main
from vllm.entrypoints.errands import Errands
from vllm.kv.groups import make_kv_plan
from vllm.protocol.kv import FullKV
from vllm.protocol.plan import SchedulerPlan
from vllm.protocol.step import StepPlan, StepResult

MAX_LEN, CRASH, RAISE, LATER, BUSY, ASLEEP = 400, 41, 42, 43, 44, 45
BUSY_S = 4.0
KV = make_kv_plan([FullKV(2, 4, 4)], "float32", num_blocks=600, block_size=4, usual_len=32)
LIMITS = SchedulerPlan(max_num_seqs=16, max_num_batched_tokens=512, max_model_len=MAX_LEN, run_ahead=1)


class DeadlyExecutor(FingerprintExecutor):
    """Fingerprints, until a deadly prompt comes."""

    def run(self, plan: StepPlan) -> StepResult:
        for o in plan.opens:
            if o.token_ids[0] == RAISE:
                raise RuntimeError("the cable was pulled")
            if o.token_ids[0] == CRASH:
                os.kill(os.getpid(), signal.SIGSEGV)
            if o.token_ids[0] == ASLEEP:
                time.sleep(3600)
            end = time.monotonic() + BUSY_S
            while o.token_ids[0] == BUSY and time.monotonic() < end:
                pass
        result = super().run(plan)
        for row in self.rows.values():
            if row.opened.token_ids[0] == LATER and len(row.tokens) >= row.opened.prompt_len + 3:
                os.kill(os.getpid(), signal.SIGSEGV)
        return result


def build(words: dict[str, object]) -> tuple[Engine, Ready, Errands]:
    """A fake engine; `words["broken"]` is why it cannot start, `words["brief"]` makes it die at once."""
    if words.get("broken"):
        raise ValueError(words["broken"])
    if words.get("brief"):  # it dies a moment after it was ready, though nobody asked anything
        threading.Timer(0.1, os._exit, (3,)).start()
    engine = Engine(LIMITS, KV, Fragile(DeadlyExecutor(KV, LIMITS)))
    assert "torch" not in sys.modules
    return engine, Ready(MAX_LEN, longest(engine), VOCAB, 20, KV.num_blocks, 4, "fingerprints"), Errands()


if __name__ == "__main__":
    engine_main.BEAT_S = 0.25
    main(build)
