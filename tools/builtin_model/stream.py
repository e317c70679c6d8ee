"""Brings shards to the trainer in order, made ahead by worker processes."""

import multiprocessing as mp
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tools.builtin_model.mixture import Packer

AHEAD = 4


def _work(queue: Any, tokenizer: str, seed: int, first: int, stride: int, length: int, rows: int) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    packer = Packer(Path(tokenizer), seed)
    number = first
    while True:
        queue.put(packer.shard(number, length, rows))
        number += stride


def shards(tokenizer: Path, seed: int, start: int, length: int, rows: int, workers: int) -> Iterator[np.ndarray]:
    """Shards `start`, `start` + 1, ... without end, each [rows, length + 1] as `Packer.shard` makes it."""
    context = mp.get_context("spawn")
    queues, processes = [], []
    for index in range(workers):
        queue = context.Queue(maxsize=AHEAD)
        arguments = (queue, str(tokenizer), seed, start + index, workers, length, rows)
        process = context.Process(target=_work, args=arguments, daemon=True)
        process.start()
        queues.append(queue)
        processes.append(process)
    try:
        number = 0
        while True:
            yield queues[number % workers].get()
            number += 1
    finally:
        for process in processes:
            process.terminate()
