"""`vllm bench latency`: how long one batch takes, again and again. Called by: entrypoints/cli/bench.py."""

from __future__ import annotations

import argparse
import random
import statistics
import time

from vllm.entrypoints.bench.offline import add_engine_arguments, make_llm, token_prompts, vocab_of, write_json

NAMES = ("latency",)
HELP = "time one batch of equal requests, offline"
PERCENTS = (10, 25, 50, 75, 90, 99)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The batch, and every knob of the engine."""
    add = parser.add_argument
    add("--input-len", type=int, default=32, help="prompt tokens (default: %(default)s)")
    add("--output-len", type=int, default=128, help="output tokens (default: %(default)s)")
    add("--batch-size", type=int, default=8, help="requests at once (default: %(default)s)")
    add("--n", type=int, default=1, help="answers per prompt (default: %(default)s)")
    add("--use-beam-search", action="store_true", help="search with --n beams")
    add("--num-iters-warmup", type=int, default=10, help="runs that are not counted (default: %(default)s)")
    add("--num-iters", type=int, default=30, help="runs that are (default: %(default)s)")
    add("--output-json", metavar="FILE", help="write the figures there")
    add("--disable-detokenize", action="store_true", help="tokens only, no text")
    add_engine_arguments(parser, enable_prefix_caching=False)


def run(arguments: argparse.Namespace) -> int:
    """Print the mean and the percentiles."""
    from vllm.entrypoints.bench.figures import percentile
    from vllm.errors import ValidationError
    from vllm.sampling_params import BeamSearchParams, SamplingParams

    for name in ("input_len", "output_len", "batch_size", "n", "num_iters"):
        if getattr(arguments, name) < 1:
            raise ValidationError.of(name, getattr(arguments, name), "at least 1")
    length = arguments.output_len
    params = SamplingParams(
        n=arguments.n, temperature=1.0, ignore_eos=True, max_tokens=length, detokenize=not arguments.disable_detokenize
    )
    beams = BeamSearchParams(beam_width=arguments.n, max_tokens=length, ignore_eos=True)
    with make_llm(arguments) as llm:
        lengths = [arguments.input_len] * arguments.batch_size
        prompts = token_prompts(random.Random(arguments.seed), lengths, vocab_of(llm))

        def once() -> float:
            began = time.perf_counter()
            if arguments.use_beam_search:
                llm.beam_search(prompts, beams)
            else:
                llm.generate(prompts, params, use_tqdm=False)
            return time.perf_counter() - began

        for _ in range(arguments.num_iters_warmup):
            once()
        latencies = [once() for _ in range(arguments.num_iters)]
    mean = statistics.fmean(latencies)
    percentiles = {percent: percentile(latencies, percent) for percent in PERCENTS}
    print(f"Avg latency: {mean} seconds")
    for percent, seconds in percentiles.items():
        print(f"{percent}% percentile latency: {seconds} seconds")
    write_json(arguments.output_json, {"avg_latency": mean, "latencies": latencies, "percentiles": percentiles})
    return 0
