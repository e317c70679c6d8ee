"""JSON objects for a small schema: from a text that holds the values, or made up."""

import functools
import json
import random
from typing import Any

from tools.builtin_model.data_files import sections
from tools.builtin_model.documents import Document, Question, ask, pick
from tools.builtin_model.holdout import held_schema
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
        if len(set(names)) == len(names) and held_schema(f[0][0] for f in chosen) == held:
            return kind, named


def schema_text(rng: random.Random, kind: str, named: list[tuple[str, Field]], language: str) -> str:
    """The schema as people write it: full JSON schema, with or without extras, or names with types."""
    if rng.random() < 0.3:
        return json.dumps({name: json_type(field[1]) for name, field in named})
    properties: dict[str, Any] = {}
    titled = rng.random() < 0.15
    for name, field in named:
        properties[name] = {"type": json_type(field[1])}
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


def _shown(item: Any, language: str) -> str:
    return str(item)


def _describe(rng: random.Random, kind: str, data: dict[int, Any], language: str) -> str:
    """A text that says all the values, and now and then one that nobody asked for."""
    fields = _fields(kind)
    order = list(data)
    rng.shuffle(order)
    if rng.random() < 0.3:
        extra = int(rng.random() * len(fields))
        if extra not in data:
            data = {**data, extra: value(rng, fields[extra][1], language)}
            order.insert(int(rng.random() * (len(order) + 1)), extra)
    parts = [pick(rng, fields[i][2][language]).replace("{v}", _shown(data[i], language)) for i in order]
    if kind == "person" and 0 in data and language == "en" and len(order) > 1 and rng.random() < 0.5:
        parts = [data[0] + " " + p for p in _verbal(rng, fields, data, [i for i in order if i])]
        return ". ".join(parts[:1] + ["He " + p.split(" ", 1)[1] if rng.random() < 0.5 else p for p in parts[1:]]) + "."
    if language == "zh":
        return "，".join(parts) + "。"
    if rng.random() < 0.5:
        return ", ".join(parts) + "."
    return " ".join(p[0].upper() + p[1:] + "." for p in parts)


def _verbal(rng: random.Random, fields: list[Field], data: dict[int, Any], order: list[int]) -> list[str]:
    """Clauses that follow a name: the ones that begin with a verb."""
    found = []
    for i in order:
        clause = fields[i][2]["en"][0]
        if clause.startswith("the "):
            clause = "has " + clause
        found.append(clause.replace("{v}", str(data[i])))
    return found


def _pose(rng: random.Random, part: str) -> tuple[str, dict[str, Any], str]:
    language = "en" if rng.random() < 0.65 else "zh"
    kind, named = _choose(rng, part == "heldout")
    fields = _fields(kind)
    data = {fields.index(field): value(rng, field[1], language) for _, field in named}
    wanted = {name: data[fields.index(field)] for name, field in named}
    schema = schema_text(rng, kind, named, language)
    if part == "train" and rng.random() < 0.2:
        label = kind
        return phrase(rng, f"jsonfree.{language}.train", s=schema, n=label), wanted, language
    text = _describe(rng, kind, data, language)
    return phrase(rng, f"json.{language}.{part}", s=schema, t=text), wanted, language


def train(rng: random.Random) -> Document:
    """One schema, one object."""
    text, wanted, _ = _pose(rng, "train")
    return ask(text, json.dumps(wanted, ensure_ascii=False))


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
