"""Tool calls: tools in the prompt, a request, the call in Hermes form, and at times the tool's answer put in words.

Two kinds of tool: hand-written ones (`[classic]`), and ones composed of verb, noun and parameters, whose number is
large enough that the model has to read the prompt instead of remembering tools.
"""

import functools
import json
import random
import re
from dataclasses import dataclass
from typing import Any

from tools.builtin_model.data_files import sections
from tools.builtin_model.documents import Document, Message, Question, chat, pick
from tools.builtin_model.holdout import held_pair, held_tool
from tools.builtin_model.skills import capitals, facts
from tools.builtin_model.values import OPTIONS, json_type, options, value

SLOT = re.compile(r"\{(\w+)\}")
SYSTEMS = ("You are a helpful assistant.", "You are a helpful assistant that can call tools.", "你是一个有用的助手。")


@dataclass
class Param:
    """One parameter of a composed tool: its key, kind of value, phrases by language and description."""

    key: str
    kind: str
    phrases: dict[str, list[str]]
    about: str


@dataclass
class Case:
    """One tool with a request that it serves and the arguments that are right."""

    name: str
    about: str
    properties: list[tuple[str, str, str, bool]]  # key, kind, description, required
    request: str
    arguments: dict[str, Any]
    language: str


@functools.cache
def _pairs(section: str) -> list[tuple[str, str]]:
    return [tuple(item.split(" ", 1)) for item in sections("tools.txt")[section][0].split(" | ")]  # type: ignore[misc]


@functools.cache
def _params() -> list[tuple[list[str], str, dict[str, list[str]], str]]:
    found = []
    for line in sections("tools.txt")["params"]:
        keys, kind, english, chinese, about = line.split(" | ")
        found.append((keys.split(","), kind, {"en": english.split(";"), "zh": chinese.split(";")}, about))
    return found


@functools.cache
def _openers(section: str) -> list[str]:
    return sections("tools.txt")[f"openers.{section}"][0].split(" | ")


@functools.cache
def _classic(section: str) -> list[tuple[str, str, list[tuple[str, str, bool]], dict[str, list[str]]]]:
    found = []
    for line in sections("tools.txt")[section]:
        name, about, params, english, chinese = line.split(" | ")
        parsed = []
        for item in params.split(", "):
            key, kind = item.split(":")
            parsed.append((key.rstrip("?"), kind, not key.endswith("?")))
        found.append((name, about, parsed, {"en": english.split(";"), "zh": chinese.split(";")}))
    return found


def _value(rng: random.Random, kind: str, language: str) -> Any:
    if kind == "expression":
        while True:
            first, second = int(rng.random() * 1000), int(rng.random() * 1000)
            if not held_pair(first, second):
                return f"{first} {pick(rng, '+-*/')} {second}"
    return value(rng, kind, language)


def classic_case(rng: random.Random, section: str) -> Case:
    """A hand-written tool with one of its requests."""
    language = "en" if rng.random() < 0.6 else "zh"
    name, about, params, requests = pick(rng, _classic(section))
    request = pick(rng, requests[language])
    wanted = set(SLOT.findall(request))
    while True:
        arguments = {key: _value(rng, kind, language) for key, kind, _ in params if key in wanted}
        numbers = [v for v in arguments.values() if isinstance(v, int)]
        if len(numbers) < 2 or not held_pair(*numbers[:2]):
            break
    for key, item in arguments.items():
        request = request.replace("{" + key + "}", str(item))
    described = [(key, kind, f"The {key.replace('_', ' ')}", required) for key, kind, required in params]
    return Case(name, about, described, request, arguments, language)


def _named(rng: random.Random, verb: str, noun: str) -> str:
    draw = rng.random()
    if draw < 0.7:
        return f"{verb}_{noun}"
    if draw < 0.85:
        return verb + noun.capitalize()
    return f"{noun}_{verb}" if draw < 0.95 else f"{verb}-{noun}"


def composed_case(rng: random.Random, held: bool, near: Case | None = None) -> Case:
    """A tool made of a verb, a noun and one to four parameters; `near` asks for one easily taken for that tool."""
    language = "en" if rng.random() < 0.6 else "zh"
    while True:
        verb, noun = pick(rng, _pairs("verbs")), pick(rng, _pairs("nouns"))
        if held and rng.random() < 0.3:
            noun = pick(rng, _pairs("heldout.nouns"))
        if held_tool(verb[0], noun[0]) == held or noun in _pairs("heldout.nouns"):
            break
    chosen = []
    for keys, kind, phrases, about in rng.sample(_params(), pick(rng, (1, 1, 2, 2, 3, 4))):
        chosen.append(Param(pick(rng, keys), kind, phrases, about))
    arguments: dict[str, Any] = {}
    properties, said = [], []
    for param in chosen:
        if param.key in arguments:
            continue
        optional = len(properties) > 0 and rng.random() < 0.2
        properties.append((param.key, param.kind, param.about, not optional))
        if optional and rng.random() < 0.6:
            continue
        arguments[param.key] = _value(rng, param.kind, language)
        said.append(pick(rng, param.phrases[language]).replace("{v}", str(arguments[param.key])))
    if rng.random() < 0.3:
        rng.shuffle(said)
    opener = pick(rng, _openers(language + (".heldout" if held else "")))
    if language == "en":
        request = " ".join([verb[0], pick(rng, ("the", "a", "a", "my")), noun[0], *said])
    else:
        request = "，".join([verb[1] + noun[1], *said])
    request = opener.replace("{r}", request)
    about = f"{verb[0].capitalize()} {pick(rng, ('a', 'the'))} {noun[0]}"
    return Case(_named(rng, verb[0], noun[0]), about, properties, request[0].upper() + request[1:], arguments, language)


def schema(rng: random.Random, case: Case) -> dict[str, Any]:
    """The tool as an OpenAI function schema, in the shapes in which people write it."""
    described, titled = rng.random() < 0.7, rng.random() < 0.1
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
    if rng.random() < 0.4:
        return classic_case(rng, "heldout.classic" if held else "classic")
    return composed_case(rng, held)


def _toolbox(rng: random.Random, case: Case, held: bool) -> list[dict[str, Any]]:
    """The right tool among up to three others, in any order."""
    cases = {case.name: case}
    for _ in range(pick(rng, (0, 0, 1, 1, 2, 3))):
        other = _case(rng, held)
        if other.name != case.name and other.about != case.about and not _same_job(case, other):
            cases.setdefault(other.name, other)
    found = list(cases.values())
    rng.shuffle(found)
    return [schema(rng, c) for c in found]


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
    tools = _toolbox(rng, case, False)
    messages: list[Message] = []
    if rng.random() < 0.2:
        messages.append({"role": "system", "content": pick(rng, SYSTEMS)})
    if rng.random() < 0.1:
        question, answer = _other_topic(rng)
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return chat(messages, tools)
    calls = [{"name": case.name, "arguments": case.arguments}]
    messages.append({"role": "user", "content": case.request})
    draw = rng.random()
    if draw < 0.08 and _two_places(rng, case, messages, calls):
        messages.append({"role": "assistant", "tool_calls": calls})
        return chat(messages, tools)
    messages.append({"role": "assistant", "tool_calls": calls})
    if draw < 0.3:
        data, answer = _reply(rng, case)
        messages += [{"role": "tool", "content": data}, {"role": "assistant", "content": answer}]
    return chat(messages, tools, thinking=False if rng.random() < 0.05 else None)


def _two_places(rng: random.Random, case: Case, messages: list[Message], calls: list[dict[str, Any]]) -> bool:
    """Turns a request about one city into one about two, with two calls."""
    key = next((k for k, kind, _, _ in case.properties if kind == "city" and k in case.arguments), "")
    if not key or len(case.arguments) > 1:
        return False
    second = value(rng, "city", case.language)
    first = case.arguments[key]
    if second == first or first not in case.request:
        return False
    joint = f"{first}和{second}" if case.language == "zh" else f"{first} and {second}"
    messages[-1]["content"] = case.request.replace(first, joint)
    calls.append({"name": case.name, "arguments": {key: second}})
    return True


def heldout(rng: random.Random, count: int = 400) -> list[Question]:
    """Held-out tools, among other held-out tools."""
    found = []
    for _ in range(count):
        case = _case(rng, True)
        message = {"role": "user", "content": case.request}
        expected = {"name": case.name, "arguments": case.arguments}
        found.append(Question(f"tools.{case.language}", expected, [message], tools=_toolbox(rng, case, True)))
    return found


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
