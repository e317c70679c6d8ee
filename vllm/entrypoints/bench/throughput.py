"""`vllm bench throughput`: how much an engine gives when everything is asked at once. Called by: cli/bench.py."""

from __future__ import annotations

import argparse
import time

from vllm.entrypoints.bench.offline import add_engine_arguments, make_llm, vocab_of, write_json
from vllm.entrypoints.bench.samples import add_dataset_arguments, make_samples

NAMES = ("throughput",)
HELP = "requests and tokens a second of many requests, offline"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The requests, and every knob of the engine."""
    add = parser.add_argument
    add("--backend", choices=("vllm",), default="vllm", help="only this engine")
    add("--input-len", type=int, help="prompt tokens; as --random-input-len")
    add("--output-len", type=int, help="output tokens, also in place of those of a file")
    add("--output-json", metavar="FILE", help="write the figures there")
    add("--disable-detokenize", action="store_true", help="tokens only, no text")
    add_dataset_arguments(parser)
    add_engine_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the rates."""
    from vllm.inputs import TextPrompt, TokensPrompt
    from vllm.sampling_params import SamplingParams

    if arguments.input_len is not None:
        arguments.random_input_len = arguments.input_len
    if arguments.output_len is not None:
        arguments.random_output_len = arguments.sharegpt_output_len = arguments.output_len
    with make_llm(arguments) as llm:
        samples = make_samples(arguments, llm.get_tokenizer(), vocab_of(llm), arguments.seed)
        prompts = [
            TextPrompt(prompt=s.prompt) if isinstance(s.prompt, str) else TokensPrompt(prompt_token_ids=s.prompt)
            for s in samples
        ]
        text = not arguments.disable_detokenize
        params = [
            SamplingParams(temperature=1.0, ignore_eos=True, max_tokens=s.output_len, detokenize=text) for s in samples
        ]
        began = time.perf_counter()
        outputs = llm.generate(prompts, params, use_tqdm=False)
        seconds = time.perf_counter() - began
    num_in = sum(len(output.prompt_token_ids or ()) for output in outputs)
    num_out = sum(len(one.token_ids) for output in outputs for one in output.outputs)
    total = num_in + num_out
    print(
        f"Throughput: {len(outputs) / seconds:.2f} requests/s, {total / seconds:.2f} total tokens/s, "
        f"{num_out / seconds:.2f} output tokens/s"
    )
    print(f"Total num prompt tokens:  {num_in}")
    print(f"Total num output tokens:  {num_out}")
    figures = {
        "elapsed_time": seconds,
        "num_requests": len(outputs),
        "total_num_tokens": total,
        "requests_per_second": len(outputs) / seconds,
        "tokens_per_second": total / seconds,
    }
    write_json(arguments.output_json, figures)
    return 0
