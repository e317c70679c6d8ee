"""The text generator, the chat format and the shipped files of the built-in model. No training, no torch."""

import json
import random
from pathlib import Path

import jinja2
import pytest
from tokenizers import Tokenizer

from tools.builtin_model import mixture
from tools.builtin_model.check_holdout import Check, contains, heldout_questions
from tools.builtin_model.documents import Question, chat, render
from tools.builtin_model.holdout import held_pair, held_schema
from tools.builtin_model.skills import arithmetic, capitals, records, stories, tools
from tools.builtin_model.skills.frames import framed_case
from tools.builtin_model.skills.written_tools import classic_case, renamed

ASSETS = Path(__file__).parents[3] / "vllm" / "builtin"
TEMPLATE = Path(__file__).parents[3] / "tools" / "builtin_model" / "data" / "chat_template.jinja"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(ASSETS / "tokenizer.json"))


def rendered(messages: list[dict], **more: object) -> str:
    environment = jinja2.Environment()
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(TEMPLATE.read_text()).render(messages=messages, **more)


def test_same_seed_same_text():
    once, again = (mixture.documents(random.Random("1 5"), 200) for _ in range(2))
    assert once == again
    assert once != mixture.documents(random.Random("1 6"), 200)


@pytest.mark.parametrize("thinking", [None, True, False])
@pytest.mark.parametrize("system", [True, False])
def test_prompt_is_what_the_template_renders(thinking, system):
    messages = [{"role": "system", "content": "Be kind."}] if system else []
    messages += [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHello"},
        {"role": "user", "content": "weather in 北京?"},
        {"role": "assistant", "content": "", "tool_calls": [{"name": "w", "arguments": {"city": "北京"}}]},
        {"role": "tool", "content": '{"t": 3}'},
    ]
    offered = [{"type": "function", "function": {"name": "w", "parameters": {"type": "object"}}}]
    more = {} if thinking is None else {"enable_thinking": thinking}
    assert render(messages, offered, thinking) == rendered(messages, tools=offered, add_generation_prompt=True, **more)


def test_only_the_assistant_is_learned():
    document = chat([{"role": "user", "content": "secret"}, {"role": "assistant", "content": "answer"}])
    assert "".join(t for t, learn in document if learn) == "answer<|im_end|><|endoftext|>"


def test_training_holds_nothing_held_out():
    check = Check()
    for document in mixture.documents(random.Random("1 3"), 4000):
        check.document(document)
    check.words_sums(500)
    assert check.wrong == []
    assert min(check.seen.values()) > 100


def test_the_check_finds_a_planted_leak():
    first, second = next((a, 500) for a in range(100, 999) if held_pair(a, 500))
    for prompt in (f"What is {first} + {second}?", "I forgot the capital of France. Which city is it?"):
        check = Check()
        check.document([(prompt, False), ("x", True)])
        assert len(check.wrong) == 1


@pytest.mark.parametrize("request_", ["What does the word owl mean?", "From now on star A1 bears the name of Bob."])
def test_the_check_finds_a_planted_tool_request(request_):
    check = Check()
    asked = [{"role": "user", "content": request_}, {"role": "assistant", "content": "x"}]
    check.document(chat(asked, [{"type": "function", "function": {"name": "w", "parameters": {}}}]))
    assert len(check.wrong) == 1


@pytest.mark.parametrize("make", [framed_case, lambda rng: renamed(rng, classic_case(rng, "classic"))])
def test_every_argument_stands_in_its_request(make):
    rng = random.Random(4)
    for _ in range(400):
        case = make(rng)
        keys = {key for key, *_ in case.properties}
        assert case.again is not None
        for request, arguments in ((case.request, case.arguments), case.again(rng)):
            assert arguments.keys() <= keys
            assert all(str(item).lower() in request.lower() for item in arguments.values()), (request, arguments)
            assert "[" not in request
            assert "{" not in request


def test_held_out_questions_are_held_out():
    check, skills = Check(), set()
    for question in heldout_questions(1):
        check.question(question)
        skills.add(question.skill.split(".")[0])
    assert check.wrong == []
    assert skills == {"capitals", "arithmetic", "facts", "words", "json", "tools", "thinking", "stories"}


def test_held_out_pairs_come_in_both_orders_and_are_a_twentieth():
    pairs = [(a, b) for a in range(100, 1000, 7) for b in range(100, 1000, 11)]
    assert all(held_pair(a, b) == held_pair(b, a) for a, b in pairs)
    assert 0.04 < sum(held_pair(a, b) for a, b in pairs) / len(pairs) < 0.06
    assert not held_pair(5, 7)
    assert held_schema(["a", "b"]) == held_schema(["b", "a"])


def test_judges_refuse_wrong_answers():
    asked = Question("capitals.en", "Paris", [{"role": "user", "content": "capital of France?"}])
    assert capitals.correct(asked, "The capital of France is Paris.")
    assert not capitals.correct(asked, "Paris or Berlin.")
    assert not arithmetic.correct(Question("arithmetic", 579), "123 + 456 = 580")
    record = Question("json.en", {"age": 3})
    assert records.correct(record, '{"age": 3}')
    assert records.valid(record, '{"age": 4}')
    assert not records.correct(record, '{"age": 4}')
    assert not records.valid(record, '{"age": "3"}')
    assert not records.valid(record, '{"age": 3')


def test_tool_call_judge():
    offered = {"function": {"name": "w", "parameters": {"properties": {"c": {}}, "required": ["c"]}}}
    question = Question("tools.en", {"name": "w", "arguments": {"c": "x"}}, tools=[offered])
    good = '<tool_call>\n{"name": "w", "arguments": {"c": "x"}}\n</tool_call>'
    assert tools.correct(question, good)
    assert tools.valid(question, good.replace("x", "y"))
    assert not tools.correct(question, good.replace("x", "y"))
    assert not tools.valid(question, good.replace('"c"', '"d"'))
    assert not tools.valid(question, good.replace("}}", "}"))


def test_stories_do_not_repeat():
    rng = random.Random(2)
    for language, size in (("en", 4), ("zh", 6)):
        for _ in range(50):
            assert not stories.repeats(stories.compose(rng, language, stories.cast(rng, language)), size)
    assert stories.repeats("a b c d a b c d")
    assert contains("x What is 5 now?", ["What is ", " now?"])


def test_every_country_has_both_names_and_capitals():
    rows = capitals.countries()
    assert len(rows) >= 190
    assert all(len(row) == 5 and all(row) for row in rows)
    assert len({row[0] for row in rows}) == len({row[1] for row in rows}) == len(rows)


def test_tokenizer_is_byte_complete_and_splits_digits(tokenizer):
    text = "Ünï ☃ 龘 \x07 𝄞 123\n\t  the capital of France 你好，世界"
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text
    assert tokenizer.encode("4096").tokens == ["4", "0", "9", "6"]
    assert len(tokenizer.encode("法国首都是巴黎").ids) == 7
    for mark in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>", "</tool_call>"):
        assert len(tokenizer.encode(mark).ids) == 1
    assert tokenizer.decode(tokenizer.encode("<think>a</think><|im_end|>").ids) == "<think>a</think>"


def test_shipped_files_agree(tokenizer):
    config = json.loads((ASSETS / "config.json").read_text())
    generation = json.loads((ASSETS / "generation_config.json").read_text())
    tokens = json.loads((ASSETS / "tokenizer_config.json").read_text())
    assert tokens["chat_template"] == TEMPLATE.read_text()
    assert tokenizer.get_vocab_size() == config["vocab_size"] == 6144
    assert generation["eos_token_id"] == [tokenizer.token_to_id("<|endoftext|>"), tokenizer.token_to_id("<|im_end|>")]
    assert config["max_position_embeddings"] >= 4096
    assert (ASSETS / "model.safetensors").stat().st_size <= 16_000_000
