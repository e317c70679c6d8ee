"""Countries, their capitals and their continents, in English and Chinese, both ways round."""

import functools
import random

from tools.builtin_model.data_files import rows
from tools.builtin_model.documents import Document, Question, ask, completion, pick
from tools.builtin_model.noise import decorated
from tools.builtin_model.phrasings import phrase, phrasings, styled

CONTINENTS = {
    "AF": ("Africa", "非洲"),
    "AS": ("Asia", "亚洲"),
    "EU": ("Europe", "欧洲"),
    "NA": ("North America", "北美洲"),
    "SA": ("South America", "南美洲"),
    "OC": ("Oceania", "大洋洲"),
}

SHORT = {
    "the United States": ("USA", "the USA", "America", "the US"),
    "the United Kingdom": ("UK", "the UK", "Great Britain"),
    "the United Arab Emirates": ("UAE", "the UAE"),
    "the Czech Republic": ("Czechia",),
    "the Netherlands": ("Holland", "Netherlands"),
    "Ivory Coast": ("the Ivory Coast",),
    "East Timor": ("Timor-Leste",),
}


@functools.cache
def countries() -> list[list[str]]:
    """Rows of English name, Chinese name, English capital, Chinese capital, continent code."""
    return rows("countries.tsv")


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]


def _stop(text: str) -> str:
    """A full stop unless the name ends in one."""
    return text if text.endswith(".") else text + "."


def _asked(rng: random.Random, country: str) -> str:
    """A country as people name it: now and then without its article, or short."""
    if rng.random() < 0.3:
        return pick(rng, SHORT[country]) if country in SHORT else country.removeprefix("the ")
    return country


def _capital(rng: random.Random) -> Document:
    en, zh, capital_en, capital_zh, code = pick(rng, countries())
    in_en, in_zh = CONTINENTS[code]
    draw = rng.random()
    if draw < 0.30:
        question = styled(rng, _upper(phrase(rng, "capital.en.train", c=_asked(rng, en))))
        brief = "briefly" in question or "one word" in question
        question = decorated(rng, question, "en")
        return ask(question, _stop(capital_en) if brief else _stop(f"The capital of {en} is {capital_en}"))
    if draw < 0.60:
        question = decorated(rng, styled(rng, phrase(rng, "capital.zh.train", c=zh)), "zh")
        return ask(question, f"{zh}的首都是{capital_zh}。")
    tail_en = f" {_upper(en)} is a country in {in_en}." if rng.random() < 0.4 else ""
    tail_zh = f"{zh}是{in_zh}的一个国家。" if rng.random() < 0.4 else ""
    if draw < 0.80:
        return completion(_upper(phrase(rng, "capital.raw.en.train", c=en)), " " + _stop(capital_en) + tail_en)
    return completion(phrase(rng, "capital.raw.zh.train", c=zh), f"{capital_zh}。{tail_zh}")


def _other_way(rng: random.Random) -> Document:
    en, zh, capital_en, capital_zh, code = pick(rng, countries())
    in_en, in_zh = CONTINENTS[code]
    draw = rng.random()
    if draw < 0.25:
        return ask(phrase(rng, "country.en.train", k=capital_en), f"{capital_en} is the capital of {en}.")
    if draw < 0.5:
        return ask(phrase(rng, "country.zh.train", k=capital_zh), f"{capital_zh}是{zh}的首都。")
    if draw < 0.65:
        return ask(_upper(phrase(rng, "continent.en.train", c=en)), f"{_upper(en)} is in {in_en}.")
    if draw < 0.8:
        return ask(phrase(rng, "continent.zh.train", c=zh), f"{zh}在{in_zh}。")
    if draw < 0.9:
        return completion(f"{_upper(en)} is a country in", f" {in_en}. " + _stop(f"Its capital is {capital_en}"))
    return completion(f"{zh}是", f"{in_zh}的一个国家，首都是{capital_zh}。", learn_prompt=True)


def train(rng: random.Random) -> Document:
    """Mostly country to capital, the direction that is scored."""
    return _capital(rng) if rng.random() < 0.75 else _other_way(rng)


def heldout(rng: random.Random) -> list[Question]:
    """Every country once in each language as a chat, and once in each as a raw text."""
    found = []
    for en, zh, capital_en, capital_zh, _ in countries():
        for language, country, capital in (("en", en, capital_en), ("zh", zh, capital_zh)):
            text = _upper(phrase(rng, f"capital.{language}.heldout", c=country))
            message = {"role": "user", "content": text}
            found.append(Question(f"capitals.{language}", capital, [message]))
            raw = _upper(phrase(rng, f"capital.raw.{language}.heldout", c=country))
            found.append(Question(f"capitals.raw.{language}", capital, prompt=raw))
    return found


def correct(question: Question, answer: str) -> bool:
    """The capital is named, and no other capital is that is not part of its name or of the question."""
    column = 2 if question.skill.endswith("en") else 3
    asked = question.text()
    named = {row[column] for row in countries() if row[column] in answer and row[column] not in asked}
    extra = {name for name in named if name not in question.expected and question.expected not in name}
    return question.expected in answer and not extra


def heldout_sections() -> list[str]:
    """For the proof: the phrasings that training must not hold."""
    return [p for s in ("en", "zh", "raw.en", "raw.zh") for p in phrasings(f"capital.{s}.heldout")]
