"""JSON objects for a small schema: from a text that holds the values, or made up."""

import functools
import json
import random
from typing import Any

from tools.builtin_model.data_files import sections
from tools.builtin_model.documents import Document, Question, ask, pick
from tools.builtin_model.holdout import held_schema
from tools.builtin_model.lexicon import made_key
from tools.builtin_model.noise import decorated
from tools.builtin_model.phrasings import phrase
from tools.builtin_model.values import OPTIONS, json_type, options, value

Field = tuple[list[str], str, dict[str, list[str]]]
KINDS = ("person", "product", "book", "event", "trip", "animal")


@functools.cache
def _fields(kind: str) -> list[Field]:
    found = []
    for line in sections("records.txt")[kind]:
        names, value_kind, english, chinese = line.split(" | ")
        found.append((names.split(","), value_kind, {"en": english.split(";"), "zh": chinese.split(";")}))
    return found


MADE_KINDS = ("int", "small", "price", "thing", "phrase", "code", "made", "bool", "things")
MADE_CLAUSES = {
    "en": ("the {k} is {v}", "{k}: {v}", "with {k} {v}", "has the {k} {v}"),
    "zh": ("{k}是{v}", "{k}：{v}", "{k}为{v}"),
}


def _made_field(rng: random.Random) -> tuple[str, Field]:
    """A field with a name of no list."""
    key = made_key(rng)
    clauses = {lang: [c.replace("{k}", key.replace("_", " ")) for c in MADE_CLAUSES[lang]] for lang in ("en", "zh")}
    return key, ([key], pick(rng, MADE_KINDS), clauses)


def _choose(rng: random.Random, held: bool) -> tuple[str, list[tuple[str, Field]]]:
    """A kind of record and two to five of its fields, each under one of its names."""
    while True:
        kind = pick(rng, KINDS)
        fields = _fields(kind)
        chosen = rng.sample(fields, 2 + int(rng.random() * min(4, len(fields) - 2)))
        if rng.random() < 0.6:
            chosen.sort(key=fields.index)
        named = [(pick(rng, f[0]), f) for f in chosen]
        names = [n for n, _ in named]
        if rng.random() < 0.25 and len(named) > 2:
            named[-1] = _made_field(rng)
            names = [n for n, _ in named]
            rng.shuffle(named)
        if len(set(names)) == len(names) and held_schema(names) == held:
            return kind, named


def schema_text(rng: random.Random, kind: str, named: list[tuple[str, Field]], language: str) -> str:
    """The schema as people write it: full JSON schema, with or without extras, or names with types."""
    if rng.random() < 0.3:
        return json.dumps({name: json_type(field[1]) if field[1] != "things" else "array" for name, field in named})
    properties: dict[str, Any] = {}
    titled = rng.random() < 0.15
    for name, field in named:
        properties[name] = {"type": json_type(field[1])}
        if field[1] == "things":
            properties[name] = {"type": "array", "items": {"type": "string"}}
        if titled:
            properties[name] = {"title": name.replace("_", " ").title(), **properties[name]}
        if field[1] in OPTIONS and rng.random() < 0.5:
            properties[name]["enum"] = options(field[1], language)
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if rng.random() < 0.8:
        schema["required"] = [name for name, _ in named]
    if titled:
        schema = {"title": kind.title(), **schema} if rng.random() < 0.5 else {**schema, "title": kind.title()}
    if rng.random() < 0.15:
        schema["additionalProperties"] = False
    return json.dumps(schema, ensure_ascii=False)


def _value(rng: random.Random, kind: str, language: str, made: bool = True) -> Any:
    """A value of a field; `things` is a list of words."""
    if kind == "things":
        return [value(rng, "thing", language, made) for _ in range(1 + int(rng.random() * 4))]
    return value(rng, "phrase" if kind == "made" and not made else kind, language, made)


def _shown(item: Any, language: str) -> str:
    """A value as a text says it."""
    if isinstance(item, bool):
        return ("yes" if item else "no") if language == "en" else ("是" if item else "否")
    if isinstance(item, list):
        return " and ".join(item) if language == "en" else "和".join(item)
    return str(item)


def _describe(rng: random.Random, kind: str, pairs: list[tuple[Field, Any]], language: str) -> str:
    """A text that says all the values, and now and then one that nobody asked for."""
    pairs = rng.sample(pairs, len(pairs))
    if rng.random() < 0.3:
        extra = pick(rng, _fields(kind))
        if all(extra is not field for field, _ in pairs):
            pairs.insert(int(rng.random() * (len(pairs) + 1)), (extra, value(rng, extra[1], language)))
    parts = [pick(rng, f[2][language]).replace("{v}", _shown(v, language)) for f, v in pairs]
    name = next((v for f, v in pairs if f is _fields("person")[0]), None)
    if name and language == "en" and len(pairs) > 1 and rng.random() < 0.5:
        return _portrait(rng, name, [(f, v) for f, v in pairs if v is not name])
    if language == "zh":
        return "，".join(parts) + "。"
    if rng.random() < 0.5:
        return ", ".join(parts) + "."
    return " ".join(p[0].upper() + p[1:] + "." for p in parts)


def _portrait(rng: random.Random, name: str, pairs: list[tuple[Field, Any]]) -> str:
    """Sentences or clauses about a person, each beginning with a verb."""
    clauses = []
    for field, item in pairs:
        clause = field[2]["en"][0]
        clauses.append(("has " if clause.startswith("the ") else "") + clause.replace("{v}", _shown(item, "en")))
    if rng.random() < 0.5:
        return f"{name} " + (", ".join(clauses[:-1]) + " and " if len(clauses) > 1 else "") + clauses[-1] + "."
    other = pick(rng, ("He", "She", name))
    return ". ".join([f"{name} {clauses[0]}", *(f"{other} {c}" for c in clauses[1:])]) + "."


def _pose(rng: random.Random, part: str) -> tuple[str, dict[str, Any], str]:
    language = "en" if rng.random() < 0.65 else "zh"
    kind, named = _choose(rng, part == "heldout")
    free = part == "train" and rng.random() < 0.2
    pairs = [(field, _value(rng, field[1], language, made=not free)) for _, field in named]
    wanted = {name: item for (name, _), (_, item) in zip(named, pairs, strict=True)}
    schema = schema_text(rng, kind, named, language)
    if free:
        return phrase(rng, f"jsonfree.{language}.train", s=schema, n=kind), wanted, language
    text = _describe(rng, kind, pairs, language)
    return phrase(rng, f"json.{language}.{part}", s=schema, t=text), wanted, language


def train(rng: random.Random) -> Document:
    """One schema, one object."""
    text, wanted, language = _pose(rng, "train")
    return ask(decorated(rng, text, language, 0.1, opening_only=True), json.dumps(wanted, ensure_ascii=False))


def heldout(rng: random.Random, count: int = 400) -> list[Question]:
    """Held-out schemas in held-out phrasings."""
    found = []
    for _ in range(count):
        text, wanted, language = _pose(rng, "heldout")
        found.append(Question(f"json.{language}", wanted, [{"role": "user", "content": text}]))
    return found


def valid(question: Question, answer: str) -> bool:
    """One JSON object with exactly the fields of the schema, each of its type."""
    try:
        found = json.loads(answer)
    except ValueError:
        return False
    return (
        isinstance(found, dict)
        and found.keys() == question.expected.keys()
        and all(
            type(found[k]) is type(v) or {type(found[k]), type(v)} == {int, float} for k, v in question.expected.items()
        )
    )


def correct(question: Question, answer: str) -> bool:
    """Valid, with the values of the text."""
    return valid(question, answer) and json.loads(answer) == question.expected
