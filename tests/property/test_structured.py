"""Forced JSON is valid, whatever the schema; and a constraint is where its tokens say, however it came there."""

import json
import random

import numpy as np
import pytest

from vllm import LLM, SamplingParams
from vllm.features.structured_output.compiler import Compiler
from vllm.features.structured_output.matching import Matching, Thinking
from vllm.features.structured_output.source import Source, json_source
from vllm.sampling_params import StructuredOutputsParams

NUM_LOGITS, END = 6144, (0, 2)
WORDS = {"folder": "vllm/builtin", "num_logits": NUM_LOGITS}


def random_schema(rng: random.Random, depth: int = 0) -> dict:
    kinds = ["string", "integer", "boolean", "enum", "null", "number", "pattern", "const"]
    kind = rng.choice(kinds + (["object", "array", "anyOf"] * 2 if depth < 3 else []))
    if depth == 0:
        kind = rng.choice(["object", "object", "array"])
    match kind:
        case "string":
            return {"type": "string", "maxLength": rng.randint(1, 12)}
        case "integer":
            low = rng.randint(-50, 50)
            return {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 1000)}
        case "number":
            # why: digits behind the point have no limit of their own, and a model may never stop writing them
            return {"type": "number", "minimum": 0, "maximum": rng.randint(1, 100), "multipleOf": 0.25}
        case "enum":
            return {"enum": rng.sample(["red", "green", 'q"uote', 7, None, True, "蓝"], rng.randint(1, 4))}
        case "const":
            return {"const": rng.choice(["x", 3, {"a": [1]}])}
        case "pattern":
            return {
                "type": "string",
                "pattern": rng.choice([r"^[a-z]{2,5}$", r"^\d{3}-\d{2}$", r"^(a|bc)+$"]),
                "maxLength": 8,
            }
        case "object":
            names = rng.sample(["name", "age", "city", "名", "a b", "x\ny", "tags", "id"], rng.randint(0, 5))
            required = [name for name in names if rng.random() < 0.6]
            properties = {name: random_schema(rng, depth + 1) for name in names}
            return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
        case "array":
            low = rng.randint(0, 2)
            return {
                "type": "array",
                "items": random_schema(rng, depth + 1),
                "minItems": low,
                "maxItems": low + rng.randint(0, 2),
            }
        case "anyOf":
            return {"anyOf": [random_schema(rng, depth + 1) for _ in range(rng.randint(1, 3))]}
    return {"type": kind}


def is_valid(value, schema: dict) -> bool:
    """Whether a value follows a schema of those that `random_schema` makes."""
    import re

    if "anyOf" in schema:
        return any(is_valid(value, one) for one in schema["anyOf"])
    if "enum" in schema:
        return any(value == one and type(value) is type(one) for one in schema["enum"])
    if "const" in schema:
        return value == schema["const"]
    match schema["type"]:
        case "string":
            fits = re.search(schema.get("pattern", ""), value) if isinstance(value, str) else None
            return isinstance(value, str) and len(value) <= schema["maxLength"] and fits is not None
        case "integer":
            return type(value) is int and schema["minimum"] <= value <= schema["maximum"]
        case "number":
            return type(value) in (int, float) and schema["minimum"] <= value <= schema["maximum"]
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "array":
            right = isinstance(value, list) and schema["minItems"] <= len(value) <= schema["maxItems"]
            return right and all(is_valid(one, schema["items"]) for one in value)
    right = isinstance(value, dict) and set(schema["required"]) <= set(value) <= set(schema["properties"])
    return right and all(is_valid(one, schema["properties"][name]) for name, one in value.items())


def test_the_validator_can_say_no():
    schema = {"type": "integer", "minimum": 0, "maximum": 3}
    assert is_valid(3, schema) and not is_valid(4, schema) and not is_valid(True, schema) and not is_valid("3", schema)


@pytest.mark.parametrize("count", [40, pytest.param(200, marks=pytest.mark.slow)])
def test_forced_json_is_valid(count):
    rng = random.Random(count)
    schemas = [random_schema(rng) for _ in range(count)]
    params = [
        SamplingParams(temperature=1.0, max_tokens=400, seed=i, structured_outputs=StructuredOutputsParams(json=schema))
        for i, schema in enumerate(schemas)
    ]
    with LLM(max_num_seqs=64) as llm:
        outputs = llm.generate(["Here is a record:\n"] * len(schemas), params, use_tqdm=False)
    for schema, output in zip(schemas, outputs, strict=True):
        [one] = output.outputs
        assert one.finish_reason == "stop", (schema, one.text)
        assert is_valid(json.loads(one.text), schema), (schema, one.text)


@pytest.fixture(scope="module")
def compiler():
    return Compiler(**WORDS)


def mask_of(matching: Matching) -> list[int] | None:
    mask = np.zeros(NUM_LOGITS // 32, np.int32)
    if not matching.fill(mask):
        return None
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist()


SOURCES = [
    json_source({"type": "object", "properties": {"a": {"type": "string", "maxLength": 9}, "b": {"type": "integer"}}}),
    Source("regex", r"(ab|c){1,20}\d*"),
    Source("lark", 'start: "yes" | "no" | "yes sir"'),
]
THOUGHT = Thinking(False, (3,), (4,), (205,))


@pytest.mark.parametrize("thinking", [None, THOUGHT, Thinking(True, (3,), (4,), (205,))])
@pytest.mark.parametrize("source", SOURCES)
def test_the_tokens_say_where_a_constraint_is(compiler, source, thinking):
    """Going forward, back over rejected drafts, or starting anew with all tokens: the next mask is the same."""
    for seed in range(8):
        rng, tokens = random.Random(seed), []
        walker = Matching(compiler.matcher(source), thinking, END)
        for _ in range(40):
            fresh = Matching(compiler.matcher(source), thinking, END)
            fresh.follow(0, tokens)
            allowed = mask_of(fresh)
            assert mask_of(walker) == allowed
            draft = [rng.randrange(NUM_LOGITS) if rng.random() < 0.5 else rng.choice(allowed or [9]) for _ in range(3)]
            for end in range(1, 4):  # drafts are looked at one by one, then taken back
                walker.follow(len(tokens), draft[:end])
                mask_of(walker)
            if allowed == list(END):
                break
            tokens.append(rng.choice(allowed) if allowed is not None else rng.choice([4, 700, 701]))
            start = rng.randint(0, len(tokens) - 1)
            walker.follow(start, tokens[start:])
            assert walker.num_seen == len(tokens)


def test_where_thoughts_may_come(compiler):
    matching = Matching(compiler.matcher(SOURCES[2]), THOUGHT, END)
    first = mask_of(matching)
    assert 3 in first and 4 not in first and 0 not in first
    matching.follow(0, [3, 9, 0, 55])  # inside a thought everything goes, an end too
    assert mask_of(matching) is None
    matching.follow(4, [4])
    behind = mask_of(matching)
    assert 205 in behind and set(behind) - {205} == set(first) - {3}
    matching.follow(5, [205])
    assert 205 not in mask_of(matching)
