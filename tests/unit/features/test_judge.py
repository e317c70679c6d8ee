"""Caps, and the process that a hostile grammar is judged in."""

import threading
import time

import pytest

from vllm.errors import CapacityError, ValidationError
from vllm.features.structured_output import judge as judging
from vllm.features.structured_output.judge import Judge
from vllm.features.structured_output.source import MAX_ENUM, Source, check_schema, json_source, source_of
from vllm.sampling_params import StructuredOutputsParams

WORDS = {"folder": "vllm/builtin", "num_logits": 6144}
NEVER_ENDS = Source("json", '{"type": "integer", "multipleOf": 99999989}')
"""Past the caps, which no request could be: seconds of work inside the library."""


def nested(depth: int) -> dict:
    schema: dict = {"type": "null"}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        (nested(70), "depth"),
        (nested(100_000), "depth"),
        ({"properties": {str(i): {} for i in range(501)}}, "properties"),
        ({"$defs": {str(n): {"properties": {str(i): {} for i in range(51)}} for n in range(10)}}, "properties"),
        ({"enum": list(range(MAX_ENUM + 1))}, "enum"),
        ({"multipleOf": 999_983}, "multipleOf"),
        ({"multipleOf": 0.999983}, "multipleOf"),
        ({"multipleOf": 1e300}, None),
        ({"multipleOf": 65536}, None),
        ({"multipleOf": "x"}, "multipleOf"),
        ({"multipleOf": float("nan")}, "multipleOf"),
        ({"description": "x" * 70_000}, "size"),
        ({"properties": {str(i): {} for i in range(500)}}, None),
        (nested(60), None),
    ],
)
def test_caps(schema, told):
    if told is None:
        check_schema("schema", schema)
    else:
        with pytest.raises(ValidationError, match=told):
            check_schema("schema", schema)


def test_what_a_user_puts_into_a_schema_for_the_library_is_replaced():
    source = json_source({"type": "object", "x-guidance": {"whitespace_flexible": True, "lenient": True}})
    assert "lenient" not in source.text


def test_options_of_json():
    params = StructuredOutputsParams(json={"properties": {"a": {}}}, disable_additional_properties=True)
    assert '"additionalProperties": false' in source_of(params).text
    params = StructuredOutputsParams(json_object=True, whitespace_pattern="[ ]?")
    assert '"whitespace_pattern": "[ ]?"' in source_of(params).text


@pytest.fixture
def judge():
    made = Judge(WORDS, limit_s=1.0)
    yield made
    made.close()


def test_one_that_never_ends_is_killed_and_others_are_judged(judge):
    began = time.monotonic()
    slow = judge.check(NEVER_ENDS)
    fine = judge.check(Source("regex", "a+"))
    assert fine.result(30) is None
    why = slow.result(30)
    assert why is not None and ("longer to compile" in why or "one step took" in why or "memory" in why)
    assert time.monotonic() - began < 20
    assert judge.check(NEVER_ENDS).result(0) == why  # remembered
    assert judge.check(Source("regex", "b+")).result(30) is None  # and there is a process again


def test_wrong_ones_are_told_and_remembered(judge):
    why = judge.check(Source("lark", "start: nothing")).result(30)
    assert "nothing" in why
    assert judge.check(Source("lark", "start: nothing")).done()
    assert "unclosed" in judge.check(Source("regex", "(")).result(30)


def test_too_many_at_once_are_turned_away(judge, monkeypatch):
    monkeypatch.setattr(judging, "MAX_WAITING", 2)
    gate = threading.Event()
    monkeypatch.setattr(judge, "_ask", lambda source: gate.wait(20) and None)
    for text in ("a", "b"):
        judge.check(Source("regex", text))
    with pytest.raises(CapacityError):
        judge.check(Source("regex", "c"))
    gate.set()


def test_processes_end_with_close(judge):
    judge.check(Source("regex", "a")).result(30)
    [trial] = judge._free
    judge.close()
    assert trial._process.poll() is not None
