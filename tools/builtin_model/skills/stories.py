"""Short stories from a grammar of plots, beats and slots. No story repeats a run of four words."""

import functools
import random
import re

from tools.builtin_model.data_files import sections
from tools.builtin_model.documents import Document, Question, ask, completion, pick
from tools.builtin_model.noise import decorated
from tools.builtin_model.phrasings import phrase

PLOTS = {"en": ("lost", "share", "brave", "dream", "kind", "secret"), "zh": ("lost", "share", "brave", "dream", "kind")}
SLOT = re.compile(r"\{(\w+)\}")
UNIT = re.compile(r"[A-Za-z']+|[\u4e00-\u9fff]")
MALE = {"He": "He", "he": "he", "His": "His", "his": "his", "him": "him"}
FEMALE = {"He": "She", "he": "she", "His": "Her", "his": "her", "him": "her"}


@functools.cache
def _words(language: str, name: str) -> list[str]:
    return sections(f"stories_{language}.txt")[name][0].split(", ")


def repeats(text: str, size: int = 4, times: int = 2) -> bool:
    """Whether some run of `size` words (Chinese: characters) occurs `times` times."""
    units = UNIT.findall(text.lower())
    seen: dict[tuple[str, ...], int] = {}
    for start in range(len(units) - size + 1):
        run = tuple(units[start : start + size])
        seen[run] = seen.get(run, 0) + 1
        if seen[run] >= times:
            return True
    return False


def cast(rng: random.Random, language: str) -> dict[str, str]:
    """Who and what the story is about."""
    hero, friend = rng.sample(_words(language, "heroes"), 2)
    name, other = rng.sample(_words(language, "names"), 2)
    words = {"x": hero, "n": name, "f": friend, "m": other}
    words["p"], words["o"] = pick(rng, _words(language, "places")), pick(rng, _words(language, "objects"))
    words["him2"] = "him" if rng.random() < 0.5 else "her"
    return words | (MALE if rng.random() < 0.5 else FEMALE)


def compose(rng: random.Random, language: str, words: dict[str, str]) -> str:
    """A story about this cast; drawn again while it repeats itself."""
    table = sections(f"stories_{language}.txt")
    while True:
        plot = pick(rng, PLOTS[language])
        beats = [pick(rng, table["open"])]
        if rng.random() < 0.7:
            beats.append(pick(rng, table["mood"]))
        beats += [pick(rng, table[f"{plot}.{i}"]) for i in range(1, 7)]
        if language == "en" and rng.random() < 0.2:
            beats.append(pick(rng, table["moral"]))
        if rng.random() < 0.5:
            beats.append(pick(rng, table["end"]))
        text = (" " if language == "en" else "").join(beats)
        text = _articles(SLOT.sub(lambda m: words[m.group(1)], text))
        if not repeats(text, 4 if language == "en" else 6):
            return _paragraphs(rng, text, language)


def _articles(text: str) -> str:
    return re.sub(r"\b([Aa]) (?=(?:old|owl|elephant)\b)", r"\1n ", text)


def _paragraphs(rng: random.Random, text: str, language: str) -> str:
    """Half of the stories in two paragraphs, broken between sentences."""
    marks = [m.end() for m in re.finditer(r"[.!?] (?=[A-Z])" if language == "en" else r"。(?=[^”])", text)]
    if rng.random() < 0.5 or len(marks) < 5:
        return text
    middle = marks[len(marks) // 2]
    return text[:middle].rstrip() + "\n\n" + text[middle:]


def train(rng: random.Random) -> Document:
    """One story: asked for in a chat, or raw."""
    language = "en" if rng.random() < 0.6 else "zh"
    words = cast(rng, language)
    story = compose(rng, language, words)
    if rng.random() < 0.3:
        return completion("", story, learn_prompt=True)[1:]
    request = _articles(phrase(rng, f"story.{language}.train", x=words["x"], n=words["n"]))
    return ask(decorated(rng, request, language), story)


def heldout(rng: random.Random, count: int = 500) -> list[Question]:
    """Requests in held-out phrasings."""
    found = []
    for index in range(count):
        language = "zh" if index % 5 >= 3 else "en"
        words = cast(rng, language)
        text = _articles(phrase(rng, f"story.{language}.heldout", x=words["x"], n=words["n"]))
        found.append(Question(f"stories.{language}", words, [{"role": "user", "content": text}]))
    return found


def correct(question: Question, answer: str) -> bool:
    """Long enough to be a story, and no loop: no run of four words three times (Chinese: of eight characters)."""
    loop = repeats(answer, 4, 3) if question.skill.endswith("en") else repeats(answer, 8, 2)
    return len(answer) > 80 and not loop
