"""Tool calls: tools in the prompt, a request, the call in Hermes form, and at times the tool's answer put in words.

Three kinds of tool: hand-written ones (`written_tools.py`), ones made of sentence frames (`frames.py`), and ones
composed of verb, noun and phrases (`composed_tools.py`). There are so many names and keys that the model has to read
the prompt instead of remembering tools.
"""

import json
import random
import re
from collections.abc import Callable
from typing import Any

from tools.builtin_model.documents import Document, Message, Question, chat, pick
from tools.builtin_model.lexicon import made_text
from tools.builtin_model.noise import decorated
from tools.builtin_model.skills import capitals, facts
from tools.builtin_model.skills.composed_tools import composed_case
from tools.builtin_model.skills.frames import framed_case
from tools.builtin_model.skills.tool_case import Case
from tools.builtin_model.skills.tool_data import hand_written, reserved_names
from tools.builtin_model.skills.written_tools import classic_case, renamed
from tools.builtin_model.values import OPTIONS, json_type, options, value

Source = Callable[[random.Random], Case]
SYSTEMS = ("You are a helpful assistant.", "You are a helpful assistant that can call tools.", "你是一个有用的助手。")


def schema(rng: random.Random, case: Case) -> dict[str, Any]:
    """The tool as an OpenAI function schema, in the shapes in which people write it."""
    described, titled = case.explained or rng.random() < 0.7, rng.random() < 0.1
    properties: dict[str, Any] = {}
    for key, kind, about, _ in case.properties:
        entry: dict[str, Any] = {"type": json_type(kind)}
        if described:
            entry["description"] = about
        if titled:
            entry = {"title": key.replace("_", " ").title(), **entry}
        if kind in OPTIONS:
            entry["enum"] = options(kind, case.language)
        properties[key] = entry
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if rng.random() < 0.9:
        parameters["required"] = [key for key, _, _, required in case.properties if required]
    if rng.random() < 0.1:
        parameters["additionalProperties"] = False
    function: dict[str, Any] = {"name": case.name, "description": case.about, "parameters": parameters}
    if rng.random() < 0.1:
        del function["description"]
    return {"type": "function", "function": function}


def _case(rng: random.Random, held: bool) -> Case:
    draw = rng.random()
    if held:
        return classic_case(rng, "heldout.classic") if draw < 0.4 else composed_case(rng, True)
    if draw < 0.35:
        return renamed(rng, classic_case(rng, "classic"))
    while draw < 0.7:
        case = framed_case(rng)
        if case.name not in reserved_names():
            return case
    return composed_case(rng, False)


FRAMES = {
    "en": (
        "{g} the {v} {g}",
        "{g} {v} {g} {w} {g}",
        "{g} {v} {u} {g} {w}",
        "{w} {g} {v}",
        "{v} {g} {w} {u}",
        "the {v} {g} {w}",
    ),
    "zh": (
        "把{v}的{g}{w}",
        "给{v}{g}{w}{u}",
        "{v}{g}{g}{w}{g}",
        "在{v}{g}{w}{g}",
        "{g}{v}{g}{w}{u}",
        "从{v}{g}到{w}{g}",
    ),
}


def _foreign(rng: random.Random, case: Case) -> None:
    """Words the model cannot match with the tool: when it is the only one, it is still the one to call."""
    language = case.language
    values = [f'"{v}"' if isinstance(v, str) and " " in v else str(v) for v in case.arguments.values()]

    def words() -> str:
        return made_text(rng, language, 2)

    if len(values) == 2:
        frame = pick(rng, FRAMES[language]).replace("{v}", values[0]).replace("{w}", values[1])
        while "{g}" in frame or "{u}" in frame:
            frame = frame.replace("{g}", words(), 1).replace("{u}", words()[:6], 1)
    else:
        joint = " and ".join(values) if language == "en" else "，".join(values)
        frame = (" " if language == "en" else "").join([words(), joint, words() if rng.random() < 0.5 else ""])
    case.request = frame.strip() + pick(rng, ("", ".", "?") if language == "en" else ("", "。", "？"))


def _toolbox(rng: random.Random, case: Case, source: Source, foreign: bool = False) -> list[Case]:
    """The right tool among up to three others, in any order."""
    cases = {case.name: case}
    others = pick(rng, (0, 0, 1, 1, 2, 3))
    if foreign and not others and rng.random() < 0.1:
        _foreign(rng, case)
    for _ in range(others):
        other = source(rng)
        if other.name != case.name and other.about != case.about and not _same_job(case, other):
            cases.setdefault(other.name, other)
    found = list(cases.values())
    rng.shuffle(found)
    return found


def _same_job(one: Case, other: Case) -> bool:
    """Two tools that the request could mean alike."""
    words = [set(re.findall(r"[a-z]+", c.about.lower() + " " + c.name.replace("_", " "))) for c in (one, other)]
    shared = {
        "weather",
        "temperature",
        "time",
        "search",
        "stock",
        "table",
        "music",
        "email",
        "message",
        "alarm",
        "timer",
    }
    return bool(words[0] & words[1] & shared)


def _reply(rng: random.Random, case: Case) -> tuple[str, str]:
    """What the tool returns, and what the assistant makes of it."""
    zh = case.language == "zh"
    place = case.arguments.get("city") or case.arguments.get("location")
    if "weather" in case.name and place:
        degrees, sky = int(rng.random() * 40), pick(rng, ("sunny", "cloudy", "rainy", "windy", "snowy"))
        names = {"sunny": "晴", "cloudy": "多云", "rainy": "有雨", "windy": "有风", "snowy": "有雪"}
        shape = pick(rng, (("temperature", "condition"), ("temp", "sky"), ("temperature", "weather")))
        data = json.dumps({shape[0]: degrees, shape[1]: sky})
        if rng.random() < 0.3:
            data = f"{sky}, {degrees} degrees"
        return (
            data,
            f"{place}现在{degrees}度，{names[sky]}。" if zh else f"It is {sky} in {place}, with {degrees} degrees.",
        )
    draw = rng.random()
    if draw < 0.4:
        number = str(int(rng.random() * 10000))
        return json.dumps({pick(rng, ("id", "result", "value", "number")): int(number)}), (
            f"结果是{number}。" if zh else f"The result is {number}."
        )
    if draw < 0.6:
        number = str(int(rng.random() * 10000))
        return number, f"结果是{number}。" if zh else f"The result is {number}."
    if draw < 0.85:
        state = pick(rng, ("ok", "done", "success"))
        return json.dumps({"status": state}), "好的，已经完成了。" if zh else "It is done."
    return json.dumps({"error": pick(rng, ("not found", "no connection", "not allowed"))}), (
        "抱歉，工具报告了一个错误。" if zh else "I am sorry, the tool reported an error."
    )


def _other_topic(rng: random.Random) -> tuple[str, str]:
    """A question that needs no tool, with its answer."""
    while True:
        document = capitals.train(rng) if rng.random() < 0.4 else facts.dialogue(rng)
        if document[0][0].startswith("<|im_start|>user\n"):
            question = document[0][0].removeprefix("<|im_start|>user\n").removesuffix("<|im_end|>\n")
            if (
                "weather" not in question
                and "天气" not in question
                and "time" not in question
                and "几点" not in question
            ):
                return question, document[-1][0].split("<|im_end|>")[0]


def train(rng: random.Random) -> Document:
    """One conversation with tools."""
    case = _case(rng, False)
    box = _toolbox(rng, case, lambda source: _case(source, False), foreign=True)
    tools = [schema(rng, c) for c in box]
    messages: list[Message] = []
    if rng.random() < 0.2:
        messages.append({"role": "system", "content": pick(rng, SYSTEMS)})
    if rng.random() < 0.1:
        question, answer = _other_topic(rng)
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return chat(messages, tools)
    calls = [{"name": case.name, "arguments": case.arguments}]
    request = decorated(rng, case.request, case.language, 0.25, opening_only=rng.random() < 0.7)
    messages.append({"role": "user", "content": request})
    draw = rng.random()
    if draw < 0.06 and _two_places(rng, case, messages, calls):
        messages.append({"role": "assistant", "tool_calls": calls})
        return chat(messages, tools)
    messages.append({"role": "assistant", "tool_calls": calls})
    if draw < 0.25:
        messages += _answered(rng, case)
    elif draw < 0.7:
        _more_requests(rng, case, box, messages)
    return chat(messages, tools, thinking=False if rng.random() < 0.05 else None)


def _answered(rng: random.Random, case: Case) -> list[Message]:
    data, answer = _reply(rng, case)
    return [{"role": "tool", "content": data}, {"role": "assistant", "content": answer}]


def _more_requests(rng: random.Random, case: Case, box: list[Case], messages: list[Message]) -> None:
    """The conversation goes on: the tools are the longest part of a text, so more is asked of them."""
    for _ in range(pick(rng, (1, 1, 2, 2, 3, 4))):
        messages += _answered(rng, case)
        able = [c for c in box if c.again is not None] or box
        case = pick(rng, able)
        if case.again is not None:
            case.request, case.arguments = case.again(rng)
        request = decorated(rng, case.request, case.language, 0.1)
        messages.append({"role": "user", "content": request})
        messages.append({"role": "assistant", "tool_calls": [{"name": case.name, "arguments": case.arguments}]})


def _two_places(rng: random.Random, case: Case, messages: list[Message], calls: list[dict[str, Any]]) -> bool:
    """Turns a request about one city into one about two, with two calls."""
    key = next((k for k, kind, _, _ in case.properties if kind == "city" and k in case.arguments), "")
    if not key or len(case.arguments) > 1:
        return False
    second = value(rng, "city", case.language)
    first = case.arguments[key]
    if second == first or messages[-1]["content"].count(first) != 1:
        return False
    joint = f"{first}和{second}" if case.language == "zh" else f"{first} and {second}"
    messages[-1]["content"] = messages[-1]["content"].replace(first, joint)
    calls.append({"name": case.name, "arguments": {key: second}})
    return True


def heldout(rng: random.Random, count: int = 400, wide: int = 400) -> list[Question]:
    """Held-out tools, among other held-out tools: hand-written and composed ones, then `wide` of freer sentences."""
    written = {name for name, *_ in hand_written("heldout.classic")}
    found = []
    for _ in range(count):
        case = _case(rng, True)
        found.append(_posed(rng, case, "written" if case.name in written else "composed", lambda r: _case(r, True)))
    for _ in range(wide):
        found.append(
            _posed(rng, _wide_case(rng), "wide", lambda r: _wide_case(r) if r.random() < 0.5 else _case(r, True))
        )
    return found


def _wide_case(rng: random.Random) -> Case:
    return classic_case(rng, "heldout.wide")


def _posed(rng: random.Random, case: Case, kind: str, source: Source) -> Question:
    message = {"role": "user", "content": case.request}
    expected = {"name": case.name, "arguments": case.arguments}
    tools = [schema(rng, c) for c in _toolbox(rng, case, source)]
    return Question(f"tools.{kind}.{case.language}", expected, [message], tools=tools)


def parse(answer: str) -> Any:
    """The one call of an answer, or None."""
    match = re.fullmatch(r"\s*<tool_call>\n(.*)\n</tool_call>\s*", answer, re.DOTALL)
    try:
        return json.loads(match.group(1)) if match else None
    except ValueError:
        return None


def valid(question: Question, answer: str) -> bool:
    """One well-formed call of a tool that was offered, with known keys and all required ones."""
    call = parse(answer)
    if not isinstance(call, dict) or set(call) != {"name", "arguments"} or not isinstance(call["arguments"], dict):
        return False
    for tool in question.tools:
        if tool["function"]["name"] == call["name"]:
            parameters = tool["function"]["parameters"]
            known, required = set(parameters["properties"]), set(parameters.get("required", ()))
            return required <= set(call["arguments"]) <= known
    return False


def correct(question: Question, answer: str) -> bool:
    """The right tool with the right arguments."""
    call = parse(answer)
    return isinstance(call, dict) and call == question.expected
