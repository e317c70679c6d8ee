"""Hand-written tools with natural requests, in training under changing names and with changing parameters."""

import random
import re

from tools.builtin_model.documents import pick
from tools.builtin_model.holdout import held_pair, held_tool
from tools.builtin_model.lexicon import made_key, made_word
from tools.builtin_model.skills.composed_tools import Param, made_param
from tools.builtin_model.skills.tool_case import Asked, Case, argument, tool_name
from tools.builtin_model.skills.tool_data import hand_written, params, words

SLOT = re.compile(r"\{(\w+)\}")


def classic_case(rng: random.Random, section: str) -> Case:
    """A hand-written tool with one of its requests."""
    language = "en" if rng.random() < 0.6 else "zh"
    name, about, params, requests = pick(rng, hand_written(section))
    english, chinese = about.split(" / ")
    about = chinese if language == "zh" and rng.random() < 0.7 else english

    def again(source: random.Random) -> Asked:
        request = pick(source, requests[language])
        wanted = set(SLOT.findall(request))
        while True:
            arguments = {key: argument(source, kind, language) for key, kind, _ in params if key in wanted}
            numbers = [v for v in arguments.values() if isinstance(v, int)]
            if len(numbers) < 2 or not held_pair(*numbers[:2]):
                break
        for key, item in arguments.items():
            request = request.replace("{" + key + "}", str(item))
        return request, arguments

    request, arguments = again(rng)
    described = [(key, kind, f"The {key.replace('_', ' ')}", required) for key, kind, required in params]
    return Case(name, about, described, request, arguments, language, again)


def renamed(rng: random.Random, case: Case) -> Case:
    """The same tool under other names: a request must not call up a remembered tool, the prompt has to be read."""
    if rng.random() < 0.6:
        verb, noun = (*case.name.split("_"), "it")[:2]
        verb = made_word(rng) if rng.random() < 0.5 else verb
        noun = made_word(rng) if rng.random() < 0.7 else noun
        if not (held_tool(verb, noun) or held_tool(noun, verb)) and all(
            noun != n and verb != n for n, _ in words("heldout.nouns")
        ):
            case.name = tool_name(rng, verb, noun)
    keys = {key: made_key(rng) if rng.random() < 0.35 else key for key, *_ in case.properties}
    if len(set(keys.values())) < len(keys):
        return case
    case.explained = len(keys) > 1
    case.properties = [(keys[key], kind, about, needed) for key, kind, about, needed in case.properties]
    _extended(rng, case)
    order = [key for key, *_ in case.properties]
    first = case.again
    assert first is not None

    def again(source: random.Random) -> Asked:
        request, found = first(source)
        found = {keys[key]: item for key, item in found.items()}
        return _wrapped(source, (request, found), case.language), {key: found[key] for key in order if key in found}

    case.again = again
    case.request, case.arguments = again(rng)
    return case


def _extended(rng: random.Random, case: Case) -> None:
    """Parameters in any order, at times with more that no request speaks of."""
    if rng.random() < 0.6:
        rng.shuffle(case.properties)
    while rng.random() < 0.3:
        extra = made_param(rng)
        if rng.random() < 0.7:
            keys, kind, _, about = pick(rng, params())
            extra = Param(pick(rng, keys), kind, {}, about)
        if all(extra.key != key and extra.kind != kind for key, kind, _, _ in case.properties):
            place = int(rng.random() * (len(case.properties) + 1))
            case.properties.insert(place, (extra.key, extra.kind, extra.about, False))


WRAPS = {
    "en": (
        "Please {r}", "Can you {r}?", "Could you {r}?", "I want you to {r}", "I would like you to {r}", "Now {r}",
        "Help me to {r}", "{r}, please", "{r} now", "{r} if you can", "{r}, and be quick", "{r} for my friend",
        "{r}. Thank you", "I am busy, so {r}", "My sister says: {r}", "Next, {r}", "{r} today", "{r} as before",
    ),
    "zh": (
        "请{r}", "帮我{r}", "现在{r}", "然后{r}", "你能{r}吗？", "我想{r}", "{r}，谢谢", "{r}，好吗？", "{r}，快一点",
        "接下来{r}",
    ),
}  # fmt: skip
QUESTIONS = ("what", "how", "is ", "are ", "does", "do ", "did", "can", "could", "may", "when", "where", "which", "who")
BARE = ("I ", "My ", "The ", "There ", "{", '"', "It ", "On ", "At ", "By ", "From ", "In ", "For ")


def _wrapped(rng: random.Random, asked: Asked, language: str) -> str:
    """A command inside other words, so that what follows a value is not always the end."""
    request, arguments = asked
    if rng.random() > 0.25 or any(request.startswith(str(item).split(" ")[0]) for item in arguments.values()):
        return request
    body = request.rstrip(".。")
    if body[-1] in "?？!！" or body.lower().startswith(QUESTIONS) or "。" in body or ". " in body:
        return request
    wrap = str(pick(rng, WRAPS[language]))
    if language == "en" and not wrap.startswith("{r}"):
        if body.startswith(BARE) or not body[:1].isalpha() or body.split(" ")[0] in ("I", "My"):
            return request
        body = body[0].lower() + body[1:]
    text = wrap.replace("{r}", body)
    return text if text[-1] in "?？" else text + ("." if language == "en" else "。")
