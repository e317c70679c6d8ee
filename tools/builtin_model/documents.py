"""What a training text is: a list of segments, each learned or only read, and how a chat becomes such a list.

Knows the chat format (the twin of `data/chat_template.jinja`, tested equal) and nothing of any skill.
Invariant: segment boundaries fall where the tokenizer splits anyway, so that encoding segment by segment
equals encoding the joined text.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
EMPTY_THOUGHT = "<think>\n\n</think>\n\n"
TOOLS_HEAD = "# Tools\n\nYou may call these functions:\n<tools>\n"
TOOLS_TAIL = (
    "\n</tools>\n\nTo call a function, "
    'write {"name": <name>, "arguments": <object>} between <tool_call> and </tool_call>.'
)

Segment = tuple[str, bool]  # text, and whether the loss counts it
Document = list[Segment]
Message = dict[str, Any]


@dataclass
class Question:
    """One held-out test: what to send, and what `skill`'s checker needs to judge the answer."""

    skill: str
    expected: Any
    messages: list[Message] = field(default_factory=list)
    prompt: str = ""  # a raw completion when there are no messages
    tools: list[dict[str, Any]] = field(default_factory=list)
    thinking: bool | None = None

    def text(self) -> str:
        """The prompt as the model reads it."""
        return render(self.messages, self.tools, self.thinking) if self.messages else self.prompt


def completion(prompt: str, answer: str, learn_prompt: bool = False) -> Document:
    """A raw text that goes on from `prompt`; `answer` starts with its own space where one is due."""
    return [(prompt, learn_prompt), (answer + END_OF_TEXT, True)]


def system_text(messages: Sequence[Message], tools: Sequence[dict[str, Any]], thinking: bool | None) -> str:
    """The content of the system turn; empty means that there is no such turn."""
    parts = [messages[0]["content"]] if messages and messages[0]["role"] == "system" else []
    if tools:
        parts.append(TOOLS_HEAD + "\n".join(json.dumps(t, ensure_ascii=False) for t in tools) + TOOLS_TAIL)
    if thinking:
        parts.append("/think")
    return "\n\n".join(parts)


def call_text(name: str, arguments: dict[str, Any]) -> str:
    """One call in Hermes form."""
    body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    return f"<tool_call>\n{body}\n</tool_call>"


def _turn_body(message: Message) -> str:
    content = message.get("content") or ""
    if message["role"] == "tool":
        return f"<tool_response>\n{content}\n</tool_response>"
    calls = [call_text(c["name"], c["arguments"]) for c in message.get("tool_calls", ())]
    return "\n".join(([content] if content else []) + calls)


def chat(
    messages: Sequence[Message],
    tools: Sequence[dict[str, Any]] = (),
    thinking: bool | None = None,
) -> Document:
    """A whole conversation; the loss counts what the assistant says and its end marks."""
    out: Document = []
    system = system_text(messages, tools, thinking)
    if system:
        out.append((f"{TURN_START}system\n{system}{TURN_END}\n", False))
    turns = [m for m in messages if m["role"] != "system"]
    for index, message in enumerate(turns):
        role = message["role"]
        if role != "assistant":
            out.append((f"{TURN_START}{role}\n{_turn_body(message)}{TURN_END}\n", False))
            continue
        last = index == len(turns) - 1
        body = _turn_body(message)
        head = f"{TURN_START}assistant\n"
        if last and thinking is False:
            head += EMPTY_THOUGHT
        if not last and "</think>" in body:  # earlier thoughts are not shown again
            body = body.split("</think>")[-1].lstrip("\n")
        out.append((head, False))
        out.append((body + TURN_END + (END_OF_TEXT if last else ""), True))
        if not last:
            out.append(("\n", False))
    return out


def render(messages: Sequence[Message], tools: Sequence[dict[str, Any]], thinking: bool | None) -> str:
    """The prompt text of a conversation that the assistant is to go on with."""
    text = "".join(part for part, _ in chat([*messages, {"role": "assistant", "content": ""}], tools, thinking))
    return text.removesuffix(TURN_END + END_OF_TEXT)


def ask(question: str, answer: str) -> Document:
    """One user turn and its answer."""
    return chat([{"role": "user", "content": question}, {"role": "assistant", "content": answer}])


def pick(rng: random.Random, items: Sequence[Any]) -> Any:
    """Faster than `rng.choice`, which the generator calls millions of times."""
    return items[int(rng.random() * len(items))]
