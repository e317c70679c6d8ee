"""The time of a kernel call as an engine sees it: inside a graph, one call behind the other."""

from collections.abc import Callable

import torch


def in_graph(run: Callable[[int], object], copies: int, least: int = 24) -> float:
    """Microseconds a call, best of three replays of a graph of `least` calls or more.

    `run(i)` calls the kernel with the i-th of `copies` weights: together they should be larger than the cache.
    """
    calls = max(least, copies)
    run(0), run(1 % copies)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(calls):
            run(i % copies)
    graph.replay()
    best = float("inf")
    for _ in range(3):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        best = min(best, begin.elapsed_time(end) * 1e3 / calls)
    return best
