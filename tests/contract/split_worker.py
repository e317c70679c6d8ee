"""One rank of a model split over processes: runs the same prompt through every folder it is given, greedily.

Started by test_models_split as `python -m tests.contract.split_worker RANK TP PP INIT STEPS FOLDER...`. The driver rank
prints one line of JSON per folder: the tokens after the prompt.
"""

import json
import sys
from pathlib import Path

import torch

from tests.unit.worker.helpers import Host, make_kv_plan, make_worker_plan
from vllm.executor.local import LocalExecutor
from vllm.loading.loader import load_weights
from vllm.parallel.mesh import connect, disconnect
from vllm.planning.describe import describe, read_config
from vllm.protocol.plan import LoadPlan
from vllm.worker.make import make_runner

PROMPT = [5, 9, 22, 71, 3, 3, 50, 8, 13, 21, 34, 55, 89, 101, 6, 4, 77]
MAX_LEN = 128


def main(rank: int, tp: int, pp: int, init: str, steps: int, folders: list[str]) -> None:
    """Run this rank."""
    torch.set_num_threads(1)
    mesh = connect(tp, pp, rank, "gloo", init, 120.0)
    for folder in folders:
        described = describe(read_config(Path(folder)))
        plan = make_worker_plan(
            max_model_len=MAX_LEN, tp_size=tp, pp_size=pp, tp_rank=mesh.tp.rank, pp_rank=mesh.pp.rank
        )
        weights = load_weights(described.decoder, described.weights, LoadPlan(folder), plan)
        kv_plan = make_kv_plan(described.decoder, block_size=8)
        runner = make_runner(described.decoder, weights, plan, kv_plan, mesh)
        host = Host(LocalExecutor.of(runner), kv_plan)
        host.open(0, PROMPT)
        for n in (7, 6, 4):
            host.step((0, n))
        for _ in range(steps - 1):
            host.step((0, 1))
        if runner.is_driver:
            print(json.dumps(host.tokens(0)[len(PROMPT) :]), flush=True)
    disconnect()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), sys.argv[4], int(sys.argv[5]), sys.argv[6:])
