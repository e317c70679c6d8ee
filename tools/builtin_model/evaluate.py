"""Held-out scores of the built-in model: unseen phrasings, operand pairs, schemas and tools; no constrained decoding.

    python -m tools.builtin_model.evaluate                    # the trainer's own model
    python -m tools.builtin_model.evaluate --backend vllm     # the engine

Exits with 1 when a score is under its bar (BARS).
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tools.builtin_model.documents import Question
from tools.builtin_model.generate import shuffled
from tools.builtin_model.skills import arithmetic, capitals, facts, records, stories, thinking, tools, words

ASSETS = Path("vllm/builtin")
Answer = tuple[str, bool]  # text, and whether it ended by itself
Ask = Callable[[list[str], int, float], list[Answer]]

BARS = {
    "capitals.en": 0.95,
    "capitals.zh": 0.95,
    "capitals.raw.en": 0.95,
    "capitals.raw.zh": 0.95,
    "capitals.en@0.8": 0.95,
    "capitals.zh@0.8": 0.95,
    "capitals.raw.en@0.8": 0.95,
    "capitals.raw.zh@0.8": 0.95,
    "arithmetic": 0.95,
    "arithmetic.raw": 0.95,
    "tools valid": 0.95,
    "tools correct": 0.90,
    "json valid": 0.95,
    "json correct": 0.90,
    "stories": 0.95,
}
SKILLS = {
    "capitals": capitals,
    "arithmetic": arithmetic,
    "facts": facts,
    "words": words,
    "json": records,
    "tools": tools,
    "thinking": thinking,
    "stories": stories,
}
LIMITS = {"stories": 420, "json": 160, "tools": 160, "thinking": 200}


def torch_backend(folder: Path, seed: int) -> Ask:
    """The trainer's own model."""
    import torch

    from tools.builtin_model.generate import Generator

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    model = Generator(folder / "model.safetensors", folder / "tokenizer.json", device, dtype)
    size = 512 if device == "cuda" else 64
    return lambda prompts, limit, temperature: model.texts(prompts, limit, temperature, seed, size)


def vllm_backend(folder: Path, seed: int) -> Ask:
    """Our engine."""
    from vllm import LLM, SamplingParams

    llm = LLM(model=str(folder))

    def ask(prompts: list[str], limit: int, temperature: float) -> list[Answer]:
        params = SamplingParams(temperature=temperature, max_tokens=limit, seed=seed if temperature else None)
        outputs = [o.outputs[0] for o in llm.generate(prompts, params)]
        return [(o.text, o.finish_reason == "stop") for o in outputs]

    return ask


def right(question: Question, answer: Answer, measure: str) -> bool:
    """One answer judged; a text that does not end by itself is wrong."""
    skill = SKILLS[question.skill.split(".")[0]]
    return answer[1] and getattr(skill, measure)(question, answer[0])


class Scores:
    """Hits and tries by name, in order."""

    def __init__(self) -> None:
        self.counts: dict[str, list[int]] = {}
        self.misses: dict[str, list[dict[str, str]]] = {}

    def add(self, name: str, question: Question, answer: Answer, hit: bool) -> None:
        """Counts one answer; keeps the first misses to look at."""
        entry = self.counts.setdefault(name, [0, 0])
        entry[0] += hit
        entry[1] += 1
        if not hit and len(self.misses.setdefault(name, [])) < 8:
            shown = {"prompt": question.text()[-400:], "answer": answer[0][:400], "expected": str(question.expected)}
            self.misses[name].append(shown)

    def table(self) -> dict[str, dict[str, float]]:
        """Share and number by name."""
        return {name: {"score": round(hit / n, 4), "of": n} for name, (hit, n) in self.counts.items()}


def measure(ask: Ask, seed: int, share: float) -> Scores:
    """All skills; `share` below 1 takes only a part of the questions."""
    scores = Scores()
    for name, skill in SKILLS.items():
        questions = skill.heldout(shuffled(seed))
        questions = questions[:: max(1, round(1 / share))]
        prompts = [q.text() for q in questions]
        limit = LIMITS.get(name, 64)
        answers = ask(prompts, limit, 0.8 if name == "stories" else 0.0)
        for question, answer in zip(questions, answers, strict=True):
            _judge(scores, name, question, answer)
        if name == "capitals":
            for question, answer in zip(questions, ask(prompts, limit, 0.8), strict=True):
                scores.add(question.skill + "@0.8", question, answer, right(question, answer, "correct"))
    return scores


def _judge(scores: Scores, name: str, question: Question, answer: Answer) -> None:
    hit = right(question, answer, "correct")
    if name in ("json", "tools"):
        group = "tools wide" if ".wide." in question.skill else name
        scores.add(f"{group} valid", question, answer, right(question, answer, "valid"))
        scores.add(f"{group} correct", question, answer, hit)
        scores.add(question.skill, question, answer, hit)
    else:
        scores.add(question.skill, question, answer, hit)
        if name in ("arithmetic", "stories", "words", "thinking"):
            scores.add(name, question, answer, hit)
    if name == "stories":
        scores.add("stories end", question, answer, answer[1])
        scores.add("stories without any repeated 4-gram", question, answer, not stories.repeats(answer[0], 4, 2))


def report(scores: Scores) -> bool:
    """Prints the table; whether every bar is reached."""
    good = True
    for name, entry in scores.table().items():
        bar = BARS.get(name)
        state = "" if bar is None else "ok" if entry["score"] >= bar else "UNDER"
        good &= state != "UNDER"
        print(
            f"{name:38} {entry['score']:7.2%} of {entry['of']:4d}  {'' if bar is None else f'bar {bar:.0%}':8} {state}"
        )
    return good


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("torch", "vllm"), default="torch")
    parser.add_argument("--model", type=Path, default=ASSETS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--share", type=float, default=1.0, help="ask only this share of the questions")
    parser.add_argument("--json", type=Path, help="write scores and some misses here")
    args = parser.parse_args()
    backend = {"torch": torch_backend, "vllm": vllm_backend}[args.backend]
    begin = time.monotonic()
    scores = measure(backend(args.model, args.seed), args.seed, args.share)
    good = report(scores)
    seconds = round(time.monotonic() - begin, 1)
    print(f"{args.backend}, seed {args.seed}: {seconds} s")
    if args.json:
        content = {"backend": args.backend, "seed": args.seed, "seconds": seconds, "scores": scores.table()}
        args.json.write_text(json.dumps(content | {"misses": scores.misses}, ensure_ascii=False, indent=1) + "\n")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
