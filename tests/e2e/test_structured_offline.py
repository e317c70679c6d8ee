"""Constraints with everything that can happen to a row: preemption, shared prefixes, siblings, steps given ahead."""

import asyncio
import json
from dataclasses import replace

import pytest

from vllm import LLM, SamplingParams
from vllm.config.args import EngineArgs
from vllm.engine.core import Engine
from vllm.entrypoints.async_llm import AsyncLLM
from vllm.entrypoints.offline import LLMEngine
from vllm.executor.local import LocalExecutor
from vllm.features.structured_output.compiler import Compiler
from vllm.features.structured_output.device import GrammarStage
from vllm.features.structured_output.host import GrammarCompiled
from vllm.sampling_params import StructuredOutputsParams
from vllm.worker.ahead import AheadRunner

DIGITS = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 99}, "minItems": 25, "maxItems": 25}
PROMPT = "Here is a long list of numbers that somebody wrote down on a Monday in the spring of a cold year: "


def requests() -> list[SamplingParams]:
    """Constrained and free ones in turn, some with siblings."""
    made = []
    for i in range(9):
        given = {"temperature": 1.0, "seed": i, "max_tokens": 200, "n": 2 if i % 3 == 0 else 1}
        if i % 2 == 0:
            given["structured_outputs"] = StructuredOutputsParams(json=DIGITS)
        elif i % 3 == 1:
            given["structured_outputs"] = StructuredOutputsParams(regex=r"([a-z]{3} ){30}")
        else:
            given |= {"max_tokens": 60, "ignore_eos": True}
        made.append(SamplingParams(**given))
    return made


def texts(llm: LLM) -> list[list[str]]:
    outputs = llm.generate([PROMPT] * 9, requests(), use_tqdm=False)
    return [[one.text for one in output.outputs] for output in outputs]


@pytest.fixture(scope="module")
def expected():
    with LLM(deterministic=True, enable_prefix_caching=False) as llm:
        return texts(llm)


def test_constraints_hold(expected):
    for i, found in enumerate(expected):
        for text in found if i % 2 == 0 else ():
            assert len(json.loads(text)) == 25
    assert len(expected[0]) == 2 and expected[0][0] != expected[0][1]


def test_preemption_and_shared_prefixes_change_nothing(expected):
    tight = {"block_size": 16, "num_gpu_blocks_override": 20, "max_num_seqs": 8, "max_model_len": 256}
    with LLM(deterministic=True, **tight) as llm:
        assert texts(llm) == expected
        assert llm.llm_engine.assembled.engine.stats().num_preempted > 0
        assert texts(llm) == expected  # now with prefixes in the cache


def test_steps_given_ahead_change_nothing(expected):
    args = EngineArgs(deterministic=True)
    engine = LLMEngine(args)
    try:
        parts = engine.assembled
        made, plan = parts.engine._executor.runner, parts.plan
        words = {"folder": plan.load.path, "num_logits": parts.intake.limits.vocab_size}
        compiler = Compiler(**words)
        runner = AheadRunner(
            made.model, made.slabs, made.sampler._ops, plan.worker, plan.kv, [GrammarStage(compiler)], record=False
        )
        executor = LocalExecutor.of(runner)
        parts.engine = Engine(
            replace(plan.scheduler, run_ahead=1), plan.kv, executor, resources=[GrammarCompiled(compiler)]
        )
        llm = LLM.__new__(LLM)
        llm.llm_engine, llm._ids, llm._chat_template, llm._closed = engine, iter(range(1000)), None, False
        assert texts(llm) == expected
    finally:
        engine.close()


@pytest.mark.slow
def test_two_ranks_say_the_same(expected):
    with LLM(deterministic=True, tensor_parallel_size=2) as llm:
        found = texts(llm)
    assert all(len(json.loads(text)) == 25 for text in found[0] + found[2])


def test_what_does_not_fit_is_told_and_the_rest_goes_on():
    with LLM() as llm:
        for given, told in (({"regex": "("}, "unclosed"), ({"grammar": "start: x"}, "x"), ({"json": {"type": 3}}, ".")):
            with pytest.raises(ValueError, match=told):
                params = SamplingParams(structured_outputs=StructuredOutputsParams(**given))
                llm.generate(["a", "b"], [SamplingParams(max_tokens=1), params], use_tqdm=False)
        # a step of the constraint that fails ends that sequence alone: here no allowed token is left
        both = StructuredOutputsParams(choice=["yes"])
        cut = SamplingParams(structured_outputs=both, allowed_token_ids=[700])
        with pytest.raises(Exception, match="no token"):
            llm.generate("a", cut, use_tqdm=False)
        assert llm.generate("a", SamplingParams(structured_outputs=both), use_tqdm=False)[0].outputs[0].text == "yes"


def test_the_async_engine_follows_constraints_too():
    async def run() -> list[str]:
        engine = AsyncLLM.from_engine_args(EngineArgs())
        try:
            params = SamplingParams(structured_outputs=StructuredOutputsParams(choice=["red", "green"]), temperature=1)

            async def one(i: int) -> str:
                return [output async for output in engine.generate("a", params, str(i))][-1].outputs[0].text

            with pytest.raises(ValueError, match="unclosed"):
                bad = SamplingParams(structured_outputs=StructuredOutputsParams(regex="("))
                await anext(engine.generate("a", bad, "bad"))
            return await asyncio.gather(*(one(i) for i in range(8)))
        finally:
            engine.shutdown()

    assert set(asyncio.run(run())) <= {"red", "green"}


def test_chat_with_tools_offline():
    tool = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
    with LLM() as llm:
        asked = [{"role": "user", "content": "What is the weather in Paris?"}]
        [output] = llm.chat(asked, SamplingParams(temperature=0, max_tokens=60), tools=[tool], use_tqdm=False)
    assert "<tool_call>" in output.outputs[0].text and "get_weather" in output.outputs[0].text
