"""`vllm bench serve`: put an OpenAI server under load and say how it did, in vLLM's words.

Requests arrive by a clock (--request-rate, --burstiness), whatever the server does, within --max-concurrency.
Does not know: engines; imports no torch. Called by: entrypoints/cli/bench.py.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vllm.entrypoints.bench.asking import Outcome
    from vllm.entrypoints.bench.http import Connections
    from vllm.entrypoints.bench.samples import Sample

NAMES = ("serve",)
ENDPOINTS = {"vllm": "/v1/completions", "openai": "/v1/completions", "openai-chat": "/v1/chat/completions"}
"""Backend -> its route. Why here: the other measurements are told their flags beside these, and need no HTTP."""
HELP = "put a running OpenAI server under load; prints TTFT, TPOT, ITL and throughputs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which server, which requests, how they arrive, what is kept."""
    from vllm.entrypoints.bench.samples import add_dataset_arguments

    add = parser.add_argument
    add("--backend", "--endpoint-type", choices=tuple(ENDPOINTS), default="openai", help="(default: %(default)s)")
    add("--base-url", help="the server's address; wins over --host and --port")
    add("--host", default="127.0.0.1", help="(default: %(default)s)")
    add("--port", type=int, default=8000, help="(default: %(default)s)")
    add("--endpoint", help="the route; default that of the backend")
    add("--model", help="the model to ask; default the first that is served")
    add("--served-model-name", help="its name in the API, where that is another than --model")
    add("--tokenizer", help="folder or hub id of the tokenizer; default that of the model")
    add(
        "--skip-tokenizer-init",
        action="store_true",
        help="no tokenizer: random token ids as prompts (completions only)",
    )
    add("--seed", type=int, default=0, help="of prompts and arrivals (default: 0)")
    add("--request-rate", type=float, default=float("inf"), help="requests a second (default: inf, all at once)")
    add("--burstiness", type=float, default=1.0, help="1 is Poisson, smaller is burstier (default: 1)")
    add("--max-concurrency", type=int, help="most open requests; the others wait here")
    add("--num-warmups", type=int, default=0, help="requests before the measurement (default: 0)")
    add("--ignore-eos", action="store_true", help="let every answer have its full length")
    for name in ("temperature", "top-p", "min-p", "frequency-penalty", "presence-penalty", "repetition-penalty"):
        add(f"--{name}", type=float, help="sent with every request; default the server's")
    add("--top-k", type=int, help="sent with every request; default the server's")
    add("--extra-body", type=json.loads, default={}, help="JSON that is added to every request")
    add("--header", nargs="*", default=[], metavar="NAME=VALUE", help="headers that are added to every request")
    add("--api-key", help="the server's key; default VLLM_API_KEY or OPENAI_API_KEY")
    add("--insecure", action="store_true", help="accept any certificate")
    add("--percentile-metrics", default="ttft,tpot,itl", help="of ttft, tpot, itl, e2el (default: %(default)s)")
    add("--metric-percentiles", default="99", help="such as 50,90,99 (default: %(default)s)")
    add(
        "--goodput", nargs="+", default=[], metavar="METRIC:MS", help="count requests within these, as ttft:200 tpot:50"
    )
    add("--save-result", action="store_true", help="write the figures to a JSON file")
    add("--save-detailed", action="store_true", help="with the times of every request")
    add("--result-dir", default=".", help="folder of that file (default: %(default)s)")
    add("--result-filename", help="its name; default from backend, rate, model and time")
    add("--metadata", nargs="*", default=[], metavar="KEY=VALUE", help="kept in that file")
    add_dataset_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """0 when every request was answered."""
    from vllm.entrypoints.bench.figures import METRICS, table

    metrics = [name.strip() for name in arguments.percentile_metrics.split(",") if name.strip()]
    for name in metrics:
        _check(name in METRICS, "percentile_metrics", name, f"of {', '.join(METRICS)}")
    percents = [_number(word, "metric_percentiles") for word in arguments.metric_percentiles.split(",")]
    for percent in percents:
        _check(0 <= percent <= 100, "metric_percentiles", percent, "from 0 to 100")
    _check(arguments.request_rate > 0, "request_rate", arguments.request_rate, "above 0")
    _check(arguments.burstiness > 0, "burstiness", arguments.burstiness, "above 0")
    _check(
        arguments.max_concurrency is None or arguments.max_concurrency > 0,
        "max_concurrency",
        arguments.max_concurrency,
        "at least 1",
    )
    goals = {name: _number(most, "goodput") for name, most in _pairs(arguments.goodput, "goodput", ":")}
    for name in goals:
        _check(name in ("ttft", "tpot", "e2el"), "goodput", name, "of ttft, tpot, e2el")
    figures, outcomes = asyncio.run(_measure(arguments, goals, percents))
    print(table(figures, metrics, percents))
    for error in sorted({o.error for o in outcomes if o.error})[:5]:
        print(f"failed: {error}")
    if arguments.save_result or arguments.save_detailed:
        print(f"Saved to {_save(arguments, figures, outcomes)}")
    return 1 if figures["failed"] else 0


async def _measure(
    arguments: argparse.Namespace, goals: dict[str, float], percents: list[float]
) -> tuple[dict[str, Any], list[Outcome]]:
    from vllm.entrypoints.bench.figures import summarize
    from vllm.entrypoints.bench.http import Connections
    from vllm.util import env

    base = arguments.base_url or f"http://{_bracketed(arguments.host)}:{arguments.port}"
    key = arguments.api_key or env.text("VLLM_API_KEY") or env.text("OPENAI_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    headers |= dict(_pairs(arguments.header, "header", "="))
    connections = Connections(base, headers, insecure=arguments.insecure)
    try:
        model, where = await _model(arguments, connections)
        samples, tokenizer = _samples(arguments, where)
        outcomes, seconds = await _load(arguments, connections, model, samples)
    finally:
        await connections.close()
    about = {
        "date": datetime.datetime.now().strftime("%Y%m%d-%H%M%S"),
        "endpoint_type": arguments.backend,
        "backend": arguments.backend,
        "model_id": model,
        "tokenizer_id": tokenizer,
        "num_prompts": len(samples),
        "request_rate": arguments.request_rate if arguments.request_rate < float("inf") else "inf",
        "burstiness": arguments.burstiness,
        "max_concurrency": arguments.max_concurrency,
    }
    return {**about, **summarize(outcomes, seconds, goals, percents)}, outcomes


async def _load(
    arguments: argparse.Namespace, connections: Connections, model: str, samples: list[Sample]
) -> tuple[list[Outcome], float]:
    """(how each request went, seconds in all)"""
    from vllm.entrypoints.bench.asking import ask, body_of

    path = arguments.endpoint or ENDPOINTS[arguments.backend]
    extra = _extra(arguments)
    bodies = [body_of(sample, arguments.backend, model, extra) for sample in samples]
    print("Starting initial single prompt test run...", flush=True)
    trial = await ask(connections, path, bodies[0], samples[0].prompt_len)
    if trial.error:
        raise ValueError(f"the first request to {connections.base_url}{path} failed: {trial.error}")
    for i in range(arguments.num_warmups):
        await ask(connections, path, bodies[i % len(bodies)], 0)
    print(f"Starting main benchmark run: {len(samples)} requests...", flush=True)
    most = asyncio.Semaphore(arguments.max_concurrency or len(samples))

    async def one(i: int, at: float) -> Outcome:
        await asyncio.sleep(max(0.0, at - time.perf_counter()))
        async with most:
            return await ask(connections, path, bodies[i], samples[i].prompt_len)

    delays = arrivals(len(samples), arguments.request_rate, arguments.burstiness, arguments.seed)
    began = time.perf_counter()
    outcomes = await asyncio.gather(*(one(i, began + delay) for i, delay in enumerate(delays)))
    seconds = time.perf_counter() - began
    return outcomes, seconds


def arrivals(num: int, rate: float, burstiness: float, seed: int) -> list[float]:
    """Seconds after the start at which requests are made: gaps of a gamma distribution, stretched to the asked rate."""
    if rate == float("inf"):
        return [0.0] * num
    rng = random.Random(seed)
    moments, at = [], 0.0
    for _ in range(num):
        at += rng.gammavariate(burstiness, 1.0 / (rate * burstiness))
        moments.append(at)
    return [moment * (num / rate) / at for moment in moments]


async def _model(arguments: argparse.Namespace, connections: Connections) -> tuple[str, str | None]:
    """(name in the API, where its tokenizer may be)."""
    from vllm.entrypoints.bench.http import HttpError

    if arguments.model:
        return arguments.served_model_name or arguments.model, arguments.tokenizer or arguments.model
    try:
        first = json.loads(await connections.whole("GET", "/v1/models"))["data"][0]
    except (HttpError, OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"no model is named, and {connections.base_url}/v1/models does not tell one: {error}"
        ) from None
    return arguments.served_model_name or first["id"], arguments.tokenizer or first.get("root") or first["id"]


def _samples(arguments: argparse.Namespace, where: str | None) -> tuple[list[Sample], str | None]:
    from vllm.entrypoints.bench.samples import NO_TOKENIZER_IDS, as_text, make_samples

    if arguments.skip_tokenizer_init:
        return make_samples(arguments, None, NO_TOKENIZER_IDS, arguments.seed), None
    from vllm.entrypoints.helpers import get_tokenizer

    builtin = Path(__file__).parents[2] / "builtin"
    try:
        tokenizer = get_tokenizer(builtin if where == "builtin" else str(where))
    except ValueError as error:
        raise ValueError(
            f"no tokenizer for {where!r} ({error}). Name one with --tokenizer, or send token ids with "
            "--skip-tokenizer-init."
        ) from None
    samples = make_samples(arguments, tokenizer, len(tokenizer), arguments.seed)
    return as_text(samples, tokenizer, arguments.seed), where


def _extra(arguments: argparse.Namespace) -> dict[str, Any]:
    names = ("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty", "top_k")
    said = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    _check(isinstance(arguments.extra_body, dict), "extra_body", arguments.extra_body, "a JSON object")
    return {**said, **({"ignore_eos": True} if arguments.ignore_eos else {}), **arguments.extra_body}


def _save(arguments: argparse.Namespace, figures: dict[str, Any], outcomes: list[Outcome]) -> Path:
    most = f"-concurrency{arguments.max_concurrency}" if arguments.max_concurrency else ""
    model = figures["model_id"].rpartition("/")[2]
    usual = f"{arguments.backend}-{figures['request_rate']}qps{most}-{model}-{figures['date']}.json"
    kept = {**dict(_pairs(arguments.metadata, "metadata", "=")), **figures}
    if arguments.save_detailed:
        kept |= {
            "input_lens": [o.prompt_len for o in outcomes],
            "output_lens": [o.output_len for o in outcomes],
            "ttfts": [o.ttft if o.moments else 0.0 for o in outcomes],
            "itls": [o.itls for o in outcomes],
            "generated_texts": [o.text for o in outcomes],
            "errors": [o.error for o in outcomes],
        }
    file = Path(arguments.result_dir) / (arguments.result_filename or usual)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(kept), encoding="utf-8")
    return file


def _check(is_right: bool, field: str, value: Any, allowed: str) -> None:
    from vllm.errors import ValidationError

    if not is_right:
        raise ValidationError.of(field, value, allowed)


def _number(word: str, field: str) -> float:
    try:
        return float(word)
    except ValueError:
        _check(False, field, word, "a number")
        raise


def _pairs(words: list[str], field: str, sign: str) -> list[tuple[str, str]]:
    for word in words:
        _check(sign in word, field, word, f"a name, {sign!r} and a value")
    return [(word.partition(sign)[0], word.partition(sign)[2]) for word in words]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
