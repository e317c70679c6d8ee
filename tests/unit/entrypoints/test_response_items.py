"""What a response holds does not depend on how its tokens were cut into steps."""

import pytest

from vllm.entrypoints.openai.responses.items import Items
from vllm.formats.events import CallArguments, CallEnd, CallStart, ReasoningDelta, TextDelta

HI, YOU, END = ({"token": name, "logprob": -1.0} for name in ("Hi", " you", "<call>"))


@pytest.mark.parametrize(
    "steps",
    [
        [([TextDelta("Hi you")], [HI, YOU])],
        [([TextDelta("Hi")], [HI]), ([TextDelta(" you")], [YOU])],
        [([], [HI]), ([TextDelta("Hi you")], [YOU])],
    ],
)
@pytest.mark.parametrize("thought", [False, True])
def test_every_token_of_an_answer_has_its_log_probability(steps, thought):
    items = Items(shows_reasoning=True)
    if thought:
        items.add([ReasoningDelta("Hm.")], [{"token": "Hm.", "logprob": -2.0}])
    for events, logprobs in steps:
        items.add(events, logprobs)
    told = items.close("completed")
    [part] = items.made[-1]["content"]
    assert (part["text"], part["logprobs"]) == ("Hi you", [HI, YOU])
    assert told[0]["type"] == "response.output_text.done" and told[0]["logprobs"] == [HI, YOU]


def test_a_call_takes_none():
    items = Items(shows_reasoning=True)
    items.add([TextDelta("Hi")], [HI])
    items.add([CallStart(0, "c", "f"), CallArguments(0, "{}"), CallEnd(0, True)], [YOU, END])
    items.close("completed")
    assert items.made[0]["content"][0]["logprobs"] == [HI] and items.made[1]["arguments"] == "{}"
