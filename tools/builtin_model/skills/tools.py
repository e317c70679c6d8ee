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
from tools.builtin_model.lexicon import made_key, made_text, made_word
from tools.builtin_model.noise import decorated
from tools.builtin_model.phrasings import choose
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


@functools.cache
def taught_names() -> set[str]:
    """The hand-written tools of training; a composed one of these names is not held out."""
    return {name for name, *_ in _classic("classic")}


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
    english, chinese = about.split(" / ")
    about = chinese if language == "zh" and rng.random() < 0.7 else english
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


def _renamed(rng: random.Random, case: Case) -> Case:
    """The same tool under other names: a request must not call up a remembered tool, the prompt has to be read."""
    if rng.random() < 0.6:
        verb, noun = (*case.name.split("_"), "it")[:2]
        verb = made_word(rng) if rng.random() < 0.5 else verb
        noun = made_word(rng) if rng.random() < 0.7 else noun
        if not (held_tool(verb, noun) or held_tool(noun, verb)) and all(
            noun != n and verb != n for n, _ in _pairs("heldout.nouns")
        ):
            case.name = _named(rng, verb, noun)
    keys = {key: made_key(rng) if rng.random() < 0.4 else key for key, *_ in case.properties}
    if len(set(keys.values())) == len(keys):
        case.properties = [(keys[key], kind, about, needed) for key, kind, about, needed in case.properties]
        case.arguments = {keys[key]: item for key, item in case.arguments.items()}
    return case


def _named(rng: random.Random, verb: str, noun: str) -> str:
    draw = rng.random()
    if draw < 0.7:
        return f"{verb}_{noun}"
    if draw < 0.85:
        return verb + noun.capitalize()
    return f"{noun}_{verb}" if draw < 0.95 else f"{verb}-{noun}"


MADE_KINDS = ("int", "small", "price", "thing", "phrase", "name", "city", "code", "date", "made", "made", "title")
MADE_PHRASES = {
    "en": (
        "with {k} {v}",
        "with the {k} {v}",
        "{k} {v}",
        "and the {k} is {v}",
        "where the {k} is {v}",
        "set the {k} to {v}",
        "using {v} as {k}",
        "{k}: {v}",
    ),
    "zh": ("{k}是{v}", "{k}为{v}", "{k}：{v}", "把{k}设为{v}", "用{v}作{k}"),
}
NUMBER_PHRASES = {"en": ("with {v} {k}", "{v} {k}", "for {v} {k}", "by {v} {k}"), "zh": ("{v}{k}", "{k}{v}")}
TEXT_PHRASES = {
    "en": ("in the {v}", "in {v}", "to {v}", "from {v}", "at the {v}", "near {v}"),
    "zh": ("在{v}", "从{v}"),
}


def _made_param(rng: random.Random) -> Param:
    """A parameter with a key of no list, so that keys are read and not remembered."""
    key, kind = made_key(rng), pick(rng, MADE_KINDS)
    said = key.replace("_", " ")
    phrases = {}
    for language in ("en", "zh"):
        draw = rng.random()
        source = MADE_PHRASES[language]
        if draw < 0.4 and json_type(kind) in ("integer", "number"):
            source = NUMBER_PHRASES[language]
        elif draw < 0.3:
            source = TEXT_PHRASES[language]
        phrases[language] = [pick(rng, source).replace("{k}", said)]
    return Param(
        key, kind, phrases, pick(rng, ("The {k}", "{k}", "The {k} to use", "Value of {k}")).replace("{k}", said)
    )


@functools.cache
def _twins() -> list[tuple[list[str], str, dict[str, list[str]]]]:
    found = []
    for line in sections("tools.txt")["pairs"]:
        keys, kind, english, chinese = line.split(" | ")
        found.append((keys.split(","), kind, {"en": english.split(";"), "zh": chinese.split(";")}))
    return found


def _twin_case(rng: random.Random, language: str) -> tuple[dict[str, Any], list[tuple[str, str, str, bool]], str]:
    """Arguments, properties and phrase of two parameters of one kind, told apart by their order."""
    keys, kind, phrases = pick(rng, _twins())
    if rng.random() < 0.4:
        keys = [made_word(rng), made_word(rng)]
    while True:
        first, second = _value(rng, kind, language), _value(rng, kind, language)
        if keys[0] != keys[1] and not (kind == "int" and held_pair(first, second)):
            break
        keys = [made_word(rng), made_word(rng)] if keys[0] == keys[1] else keys
    properties = [(key, kind, f"The {key.replace('_', ' ')}", True) for key in keys]
    text = pick(rng, phrases[language]).replace("{v}", str(first)).replace("{w}", str(second))
    return {keys[0]: first, keys[1]: second}, properties, text


def _choose_params(rng: random.Random) -> list[Param]:
    """One to four parameters with different keys; only one that is said without its key."""
    count = pick(rng, (1, 1, 2, 2, 3, 4))
    chosen: dict[str, Param] = {}
    for keys, kind, phrases, about in rng.sample(_params(), count):
        param = _made_param(rng) if rng.random() < 0.45 else Param(pick(rng, keys), kind, phrases, about)
        vague = any(t in p for p in param.phrases["en"] for t in TEXT_PHRASES["en"])
        if vague and any(json_type(p.kind) == "string" for p in chosen.values()):
            continue
        chosen.setdefault(param.key, param)
    return list(chosen.values())


def _verb_and_noun(rng: random.Random, held: bool) -> tuple[tuple[str, str], tuple[str, str]]:
    """The words of a composed tool, each in English and Chinese."""
    while True:
        verb, noun = pick(rng, _pairs("verbs")), pick(rng, _pairs("nouns"))
        draw = rng.random()
        if held and draw < 0.3:
            return verb, pick(rng, _pairs("heldout.nouns"))
        if draw > 0.5:
            word = made_word(rng)
            noun = (word, word)
        if any(noun[0] == n for n, _ in _pairs("heldout.nouns")):
            continue
        if not held and rng.random() < 0.1:
            verb = (made_word(rng),) * 2
        if held and f"{verb[0]}_{noun[0]}" in taught_names():
            continue
        if held_tool(verb[0], noun[0]) == held:
            return verb, noun


def composed_case(rng: random.Random, held: bool) -> Case:
    """A tool made of a verb, a noun and one to four parameters."""
    language = "en" if rng.random() < 0.6 else "zh"
    verb, noun = _verb_and_noun(rng, held)
    arguments: dict[str, Any] = {}
    properties, said = [], []
    for param in _choose_params(rng):
        optional = len(properties) > 0 and rng.random() < 0.2
        properties.append((param.key, param.kind, param.about, not optional))
        if optional and rng.random() < 0.6:
            continue
        arguments[param.key] = _value(rng, param.kind, language)
        said.append(pick(rng, param.phrases[language]).replace("{v}", str(arguments[param.key])))
    if rng.random() < 0.3:
        rng.shuffle(said)
    if rng.random() < 0.12:
        arguments, properties, text = _twin_case(rng, language)
        said = [text]
    request = _request(rng, language, verb, noun, said)
    if language == "en" and rng.random() < 0.12:  # the thing itself is the parameter: "find The Blue Door"
        item = _value(rng, pick(rng, ("made", "title", "name", "thing")), language)
        arguments, properties = {noun[0]: item}, [(noun[0], "made", f"The {noun[0]}", True)]
        request = f"{verb[0]} {pick(rng, ('the ' + noun[0] + ' ', '', ''))}{item}"
    opener = choose(rng, pick(rng, _openers(language + (".heldout" if held else ""))))
    request = opener.replace("{r}", request)
    if not held and verb[0] in ("get", "find", "check", "show", "list") and said and rng.random() < 0.2:
        request = (
            f"What is the {noun[0]} {' '.join(said)}?" if language == "en" else f"{'，'.join(said)}，{noun[1]}是什么？"
        )
    about = f"{verb[0].capitalize()} {pick(rng, ('a', 'the'))} {noun[0]}"
    if language == "zh" and rng.random() < 0.5:
        about = pick(rng, ("", "用来", "可以")) + verb[1] + noun[1]
    return Case(_named(rng, verb[0], noun[0]), about, properties, request[0].upper() + request[1:], arguments, language)


def _request(rng: random.Random, language: str, verb: tuple[str, str], noun: tuple[str, str], said: list[str]) -> str:
    """What the tool is to do, as a clause."""
    if language == "en":
        return " ".join([verb[0], pick(rng, ("the", "a", "a", "my")), noun[0], *said])
    return "，".join([verb[1] + noun[1], *said])


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
        return classic_case(rng, "heldout.classic") if held else _renamed(rng, classic_case(rng, "classic"))
    return composed_case(rng, held)


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


def _toolbox(rng: random.Random, case: Case, held: bool) -> list[dict[str, Any]]:
    """The right tool among up to three others, in any order."""
    cases = {case.name: case}
    others = pick(rng, (0, 0, 1, 1, 2, 3))
    if not held and not others and rng.random() < 0.1:
        _foreign(rng, case)
    for _ in range(others):
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
    request = decorated(rng, case.request, case.language, 0.2, opening_only=True)
    messages.append({"role": "user", "content": request})
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
    if second == first or messages[-1]["content"].count(first) != 1:
        return False
    joint = f"{first}和{second}" if case.language == "zh" else f"{first} and {second}"
    messages[-1]["content"] = messages[-1]["content"].replace(first, joint)
    calls.append({"name": case.name, "arguments": {key: second}})
    return True


def heldout(rng: random.Random, count: int = 400) -> list[Question]:
    """Held-out tools, among other held-out tools; hand-written ones and composed ones."""
    written = {name for name, *_ in _classic("heldout.classic")}
    found = []
    for _ in range(count):
        case = _case(rng, True)
        message = {"role": "user", "content": case.request}
        expected = {"name": case.name, "arguments": case.arguments}
        kind = "written" if case.name in written else "composed"
        found.append(Question(f"tools.{kind}.{case.language}", expected, [message], tools=_toolbox(rng, case, True)))
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
