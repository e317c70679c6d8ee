"""The official clients of OpenAI, Anthropic and Ollama, unmodified, against a real server with the built-in model."""

import asyncio
import json
import time

import anthropic
import ollama
import openai
import pytest

from tests.support.http_server import KEY, Running, serving

QUESTION = "What is the capital of France?"
MESSAGES = [{"role": "user", "content": QUESTION}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = "What is the weather in Paris?"
FUNCTION = {"name": "get_weather", "description": "Get the weather of a city", "parameters": CITY}
SUM = "What is 17 + 25?"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("clients"), "--deterministic", "--served-model-name", "tiny", "also") as it:
        yield it


@pytest.fixture(scope="module")
def client(server: Running):
    with openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=KEY, max_retries=0) as it:
        yield it


@pytest.fixture(scope="module")
def claude(server: Running):
    with anthropic.Anthropic(base_url=f"http://127.0.0.1:{server.port}", api_key=KEY, max_retries=0) as it:
        yield it


@pytest.fixture(scope="module")
def llama(server: Running):
    it = ollama.Client(f"http://127.0.0.1:{server.port}", headers={"Authorization": f"Bearer {KEY}"})
    yield it
    it._client.close()  # it has no way of its own


# -- OpenAI: completions and chat --------------------------------------------------------------------------------------


def test_openai_models_and_completions(client: openai.OpenAI):
    assert [model.id for model in client.models.list()] == ["tiny", "also"]
    assert client.models.retrieve("also").id == "also"
    asked = {"model": "tiny", "prompt": ["The capital of France is", "1 + 1 ="], "max_tokens": 6, "temperature": 0}
    whole = client.completions.create(**asked)
    pieces = ["", ""]
    for chunk in client.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            pieces[choice.index] += choice.text
    assert pieces == [choice.text for choice in whole.choices]
    assert "Paris" in pieces[0]
    with pytest.raises(openai.NotFoundError, match="'tiny', 'also'"):
        client.completions.create(model="gpt-4", prompt="a")
    with pytest.raises(openai.BadRequestError, match="suffix"):
        client.completions.create(model="tiny", prompt="a", suffix="b")
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()


def test_openai_chat_streams_the_whole(client: openai.OpenAI):
    asked = {"model": "tiny", "messages": MESSAGES, "temperature": 0, "logprobs": True, "top_logprobs": 2}
    whole = client.chat.completions.create(**asked)
    assert "Paris" in whole.choices[0].message.content
    assert whole.choices[0].finish_reason == "stop"
    assert whole.system_fingerprint.startswith("vllm-")
    with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == whole.choices[0].message.content
    assert final.choices[0].logprobs.content == whole.choices[0].logprobs.content
    assert (final.usage.prompt_tokens, final.usage.completion_tokens) == (
        whole.usage.prompt_tokens,
        whole.usage.completion_tokens,
    )
    cut = client.chat.completions.create(model="tiny", messages=MESSAGES, max_completion_tokens=2)
    assert cut.choices[0].finish_reason == "length"


def test_openai_chat_calls_a_tool_and_reads_its_result(client: openai.OpenAI):
    tools = [{"type": "function", "function": FUNCTION}]
    asked = {"model": "tiny", "messages": [{"role": "user", "content": WEATHER}], "tools": tools, "temperature": 0}
    whole = client.chat.completions.create(**asked).choices[0]
    assert whole.finish_reason == "tool_calls"
    [call] = whole.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})
    with client.chat.completions.stream(**asked) as stream:
        final = stream.get_final_completion().choices[0]
    [streamed] = final.message.tool_calls
    assert (streamed.function.name, streamed.function.arguments) == (call.function.name, call.function.arguments)
    assert final.finish_reason == "tool_calls"
    result = {"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 21}'}
    history = [*asked["messages"], whole.message.model_dump(exclude_none=True), result]
    after = client.chat.completions.create(**{**asked, "messages": history}).choices[0]
    assert after.finish_reason == "stop" and after.message.content


def test_openai_thoughts_are_apart(client: openai.OpenAI):
    asked = {"model": "tiny", "messages": [{"role": "user", "content": SUM}], "temperature": 0}
    made = client.chat.completions.create(**asked, reasoning_effort="high")
    assert "42" in made.choices[0].message.content
    assert made.choices[0].message.reasoning_content
    assert "think>" not in made.choices[0].message.content
    assert made.usage.completion_tokens_details.reasoning_tokens > 0


def test_openai_async_many_at_once(server: Running):
    async def ask_all():
        async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=KEY) as client:

            async def ask(seed: int) -> tuple[str, str]:
                asked = {"model": "tiny", "messages": MESSAGES, "seed": seed, "temperature": 1.0}
                whole = await client.chat.completions.create(**asked)
                text = ""
                async for chunk in await client.chat.completions.create(**asked, stream=True):
                    text += chunk.choices[0].delta.content or "" if chunk.choices else ""
                return whole.choices[0].message.content, text

            return await asyncio.gather(*(ask(seed) for seed in range(12)))

    assert all(whole == streamed for whole, streamed in asyncio.run(ask_all()))


# -- OpenAI: responses -------------------------------------------------------------------------------------------------


def shape(value):
    """The output without what differs from one making to the next, or what only the client knows."""
    if isinstance(value, list):
        return [shape(one) for one in value]
    if isinstance(value, dict):
        return {
            key: shape(one) for key, one in value.items() if key not in ("id", "call_id", "parsed", "parsed_arguments")
        }
    return value


RESPONSES = {
    "text": {"input": QUESTION},
    "items": {"input": [{"role": "user", "content": [{"type": "input_text", "text": QUESTION}]}]},
    "instructed": {"input": QUESTION, "instructions": "Answer in one word."},
    "thinking": {"input": SUM, "reasoning": {"effort": "high"}},
    "calling": {"input": WEATHER, "tools": [{"type": "function", **FUNCTION}]},
    "cut": {"input": QUESTION, "max_output_tokens": 3},
    "cut call": {"input": WEATHER, "tools": [{"type": "function", **FUNCTION}], "max_output_tokens": 14},
    "likely": {"input": QUESTION, "include": ["message.output_text.logprobs"], "top_logprobs": 2},
}


# why again: whether the end comes in a step of its own is a matter of timing
@pytest.mark.parametrize("name", [*RESPONSES, *(pytest.param("likely", id=f"likely-{k}") for k in range(8))])
def test_responses_stream_the_whole(client: openai.OpenAI, name: str):
    asked = {"model": "tiny", "temperature": 0, **RESPONSES[name]}
    whole = client.responses.create(**asked)
    deltas: dict[tuple[str, int], str] = {}
    numbers = []
    with client.responses.stream(**asked) as stream:
        for event in stream:
            numbers.append(event.sequence_number)
            if event.type.endswith(".delta"):
                deltas[event.type, event.output_index] = deltas.get((event.type, event.output_index), "") + event.delta
    final = event.response
    assert numbers == list(range(len(numbers)))
    assert shape(final.model_dump()["output"]) == shape(whole.model_dump()["output"])
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.status == whole.status == ("incomplete" if name.startswith("cut") else "completed")
    assert event.type == f"response.{final.status}"
    texts = {}
    for i, item in enumerate(final.output):
        if item.type == "function_call":
            texts["response.function_call_arguments.delta", i] = item.arguments
        else:
            kind = "output" if item.type == "message" else "reasoning"
            texts[f"response.{kind}_text.delta", i] = item.content[0].text
    assert deltas == {place: text for place, text in texts.items() if text}
    if name == "text":
        assert "Paris" in whole.output_text
    if name == "thinking":
        assert [item.type for item in whole.output] == ["reasoning", "message"]
        assert whole.usage.output_tokens_details.reasoning_tokens > 0
    if name == "calling":
        [call] = whole.output
        assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Paris"})
    if name == "cut":
        assert whole.incomplete_details.reason == "max_output_tokens"
    if name == "likely":
        part = whole.output[0].content[0]
        assert "".join(token.token for token in part.logprobs) == part.text
        assert all(len(token.top_logprobs) == 2 for token in part.logprobs)


def test_responses_go_on_from_what_is_stored(client: openai.OpenAI):
    first = client.responses.create(model="tiny", input="My name is Alice.", temperature=0)
    second = client.responses.create(model="tiny", input=QUESTION, previous_response_id=first.id, temperature=0)
    assert second.previous_response_id == first.id
    assert second.usage.input_tokens > first.usage.total_tokens
    assert client.responses.retrieve(second.id).output_text == second.output_text
    items = client.responses.input_items.list(second.id).data
    assert items[0].content[0].text == QUESTION
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.NotFoundError, match="not found"):
        client.responses.create(model="tiny", input="a", previous_response_id=first.id)
    unstored = client.responses.create(model="tiny", input="a", store=False, max_output_tokens=2)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(unstored.id)
    tokens = client.responses.input_tokens.count(model="tiny", input=QUESTION)
    assert tokens.input_tokens == client.responses.create(model="tiny", input=QUESTION).usage.input_tokens


def test_responses_call_a_tool_and_read_its_result(client: openai.OpenAI):
    tools = [{"type": "function", **FUNCTION}]
    first = client.responses.create(model="tiny", input=WEATHER, tools=tools, temperature=0)
    [call] = first.output
    result = {"type": "function_call_output", "call_id": call.call_id, "output": '{"temperature": 21}'}
    after = client.responses.create(
        model="tiny", input=[result], previous_response_id=first.id, tools=tools, temperature=0
    )
    history = [{"role": "user", "content": WEATHER}, *[item.model_dump() for item in first.output], result]
    again = client.responses.create(model="tiny", input=history, tools=tools, temperature=0)
    assert after.output_text == again.output_text != ""


def test_responses_in_the_background(client: openai.OpenAI):
    made = client.responses.create(model="tiny", input=QUESTION, background=True, temperature=0)
    assert made.status in ("queued", "in_progress", "completed")
    end = time.monotonic() + 20
    while client.responses.retrieve(made.id).status != "completed":
        assert time.monotonic() < end
        time.sleep(0.05)
    done = client.responses.retrieve(made.id)
    assert "Paris" in done.output_text
    events = list(client.responses.retrieve(made.id, stream=True))
    assert events[-1].type == "response.completed" and events[-1].response.output_text == done.output_text
    rest = list(client.responses.retrieve(made.id, stream=True, starting_after=events[3].sequence_number))
    assert [event.sequence_number for event in rest] == [event.sequence_number for event in events[4:]]

    endless = {"model": "tiny", "input": QUESTION, "extra_body": {"ignore_eos": True}, "background": True}
    running = client.responses.create(**endless)
    assert client.responses.cancel(running.id).status == "cancelled"
    assert client.responses.retrieve(running.id).status == "cancelled"
    streamed = client.responses.create(**endless, stream=True)
    first = next(iter(streamed))
    streamed.close()  # a background response goes on without its reader
    assert client.responses.retrieve(first.response.id).status in ("queued", "in_progress")
    assert client.responses.cancel(first.response.id).status == "cancelled"


def test_a_response_whose_client_leaves_is_cancelled_and_kept(client: openai.OpenAI):
    endless = {"model": "tiny", "input": QUESTION, "extra_body": {"ignore_eos": True}, "temperature": 0}
    streamed = client.responses.create(**endless, stream=True)
    made, said = next(iter(streamed)).response, ""
    for event in streamed:
        said += event.delta if event.type == "response.output_text.delta" else ""
        if len(said) > 40:
            break
    streamed.close()
    end = time.monotonic() + 10
    while True:
        try:
            kept = client.responses.retrieve(made.id)
            break
        except openai.NotFoundError:
            assert time.monotonic() < end
            time.sleep(0.05)
    assert kept.status == "cancelled"
    assert kept.output_text.startswith(said) and kept.output[0].status == "incomplete"
    after = client.responses.create(model="tiny", input=QUESTION, previous_response_id=made.id, temperature=0)
    assert after.usage.input_tokens > kept.usage.output_tokens > 0

    running = client.responses.create(**endless, background=True)
    with pytest.raises(openai.BadRequestError, match="not finished"):
        client.responses.create(model="tiny", input=QUESTION, previous_response_id=running.id)
    client.responses.cancel(running.id)


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input.0.content.0"),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "input.0.type"),
        ({"input": "a", "tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"input": []}, "input"),
        ({"input": "a", "conversation": "conv_1"}, "conversation"),
        ({"input": "a", "max_output_tokens": 0}, "max_output_tokens"),
        ({"input": "a", "temperature": 9}, "temperature"),
        ({"input": "a", "background": True, "store": False}, "background"),
        ({"input": "a", "text": {"verbosity": "high"}}, "text.verbosity"),
    ],
)
def test_responses_say_what_is_wrong(client: openai.OpenAI, given: dict, param: str):
    with pytest.raises(openai.BadRequestError) as told:
        client.responses.create(model="tiny", **given)
    assert told.value.param == param


# -- Anthropic ---------------------------------------------------------------------------------------------------------

TOOL = {"name": "get_weather", "description": "Get the weather of a city", "input_schema": CITY}
GREEDY = {"extra_body": {"temperature": 0}}  # the newest client has no argument for it
CLAUDE = {
    "text": {"messages": MESSAGES},
    "system": {"messages": MESSAGES, "system": [{"type": "text", "text": "Answer in one word."}]},
    "thinking": {
        "messages": [{"role": "user", "content": SUM}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    },
    "calling": {"messages": [{"role": "user", "content": WEATHER}], "tools": [TOOL]},
    "stopped": {"messages": MESSAGES, "stop_sequences": ["Paris"]},
    "cut": {"messages": MESSAGES, "max_tokens": 3},
    "cut call": {"messages": [{"role": "user", "content": WEATHER}], "tools": [TOOL], "max_tokens": 18},
    "begun": {"messages": [*MESSAGES, {"role": "assistant", "content": "The capital of France"}]},
}
REASONS = {"calling": "tool_use", "stopped": "stop_sequence", "cut": "max_tokens", "cut call": "max_tokens"}


@pytest.mark.parametrize("name", CLAUDE)
def test_anthropic_streams_the_whole(claude: anthropic.Anthropic, name: str):
    asked = {"model": "tiny", "max_tokens": 200, **GREEDY, **CLAUDE[name]}
    whole = claude.messages.create(**asked)
    kinds = []
    with claude.messages.stream(**asked) as stream:
        for event in stream:
            kinds.append(event.type)
        final = stream.get_final_message()

    def blocks(message) -> list[dict]:
        return [block.model_dump(include={"type", "text", "thinking", "name", "input"}) for block in message.content]

    assert blocks(final) == blocks(whole) != []
    assert final.stop_reason == whole.stop_reason == REASONS.get(name, "end_turn")
    assert final.stop_sequence == whole.stop_sequence
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    if name == "text":
        assert "Paris" in whole.content[0].text
    if name == "thinking":
        assert [block.type for block in whole.content] == ["thinking", "text"]
    if name == "calling":
        assert (whole.content[0].name, whole.content[0].input) == ("get_weather", {"city": "Paris"})
    if name == "stopped":
        assert whole.stop_sequence == "Paris" and "Paris" not in whole.content[0].text


def test_anthropic_counts_caches_and_reads_results(claude: anthropic.Anthropic):
    assert [model.id for model in claude.models.list()] == ["tiny", "also"]
    question = [{"role": "user", "content": WEATHER}]
    counted = claude.messages.count_tokens(model="tiny", messages=question, tools=[TOOL]).input_tokens
    asked = {"model": "tiny", "max_tokens": 100, "tools": [TOOL], **GREEDY}
    first = claude.messages.create(messages=question, **asked)
    again = claude.messages.create(messages=question, **asked).usage
    assert again.input_tokens + again.cache_read_input_tokens == counted
    assert again.cache_read_input_tokens > 0
    result = {"type": "tool_result", "tool_use_id": first.content[0].id, "content": [{"type": "text", "text": "21"}]}
    history = [*question, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    after = claude.messages.create(messages=history, **asked)
    assert after.stop_reason == "end_turn" and after.content[0].text


def test_anthropic_errors_are_its_own(claude: anthropic.Anthropic):
    asked = {"model": "tiny", "max_tokens": 4}
    with pytest.raises(anthropic.NotFoundError, match="'tiny', 'also'") as told:
        claude.messages.create(model="claude", max_tokens=4, messages=MESSAGES)
    assert told.value.body["type"] == "error" and told.value.body["error"]["type"] == "not_found_error"
    for wrong in (
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
        {"messages": MESSAGES, "tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"messages": MESSAGES, "extra_body": {"mcp_servers": [{"name": "x"}]}},
        {"messages": MESSAGES, "extra_body": {"temperature": 5}},
        {"messages": []},
    ):
        with pytest.raises(anthropic.BadRequestError) as told:
            claude.messages.create(**asked, **wrong)
        assert told.value.body["error"]["type"] == "invalid_request_error"
    with pytest.raises(anthropic.AuthenticationError):
        claude.with_options(api_key="wrong").messages.create(**asked, messages=MESSAGES)


# -- Ollama ------------------------------------------------------------------------------------------------------------


def test_ollama_chat(llama: ollama.Client):
    asked = {"model": "tiny:latest", "messages": MESSAGES, "options": {"temperature": 0, "num_ctx": 2048}}
    whole = llama.chat(**asked)
    assert "Paris" in whole.message.content
    assert (whole.done_reason, whole.eval_count > 3, whole.total_duration > 0) == ("stop", True, True)
    lines = list(llama.chat(**asked, stream=True))
    assert "".join(line.message.content for line in lines) == whole.message.content
    assert [line.done for line in lines] == [False] * (len(lines) - 1) + [True]
    assert lines[-1].eval_count == whole.eval_count
    cut = llama.chat("tiny", MESSAGES, options={"num_predict": 2})
    assert (cut.done_reason, cut.eval_count) == ("length", 2)


def test_ollama_thinks_and_calls(llama: ollama.Client):
    for stream in (False, True):
        asked = {"model": "tiny", "messages": [{"role": "user", "content": SUM}], "options": {"temperature": 0}}
        made = llama.chat(**asked, think=True, stream=stream)
        lines = list(made) if stream else [made]
        assert "42" in "".join(line.message.content or "" for line in lines)
        assert "".join(line.message.thinking or "" for line in lines)
        tools = [{"type": "function", "function": FUNCTION}]
        made = llama.chat("tiny", [{"role": "user", "content": WEATHER}], tools=tools, stream=stream)
        [call] = [call for line in (made if stream else [made]) for call in line.message.tool_calls or ()]
        assert (call.function.name, call.function.arguments) == ("get_weather", {"city": "Paris"})
    history = [
        {"role": "user", "content": WEATHER},
        {"role": "assistant", "tool_calls": [{"function": {"name": "get_weather", "arguments": {"city": "Paris"}}}]},
        {"role": "tool", "tool_name": "get_weather", "content": "21"},
    ]
    assert llama.chat("tiny", history, tools=tools).message.content


def test_ollama_generates(llama: ollama.Client):
    asked = {"model": "tiny", "options": {"temperature": 0, "seed": 1, "num_predict": 20}}
    whole = llama.generate(prompt=QUESTION, **asked)
    assert "Paris" in whole.response
    assert "".join(line.response for line in llama.generate(prompt=QUESTION, stream=True, **asked)) == whole.response
    raw = llama.generate(prompt="The capital of France is", raw=True, **asked)
    assert raw.response.startswith(" Paris")
    lines = llama.generate(prompt="The capital of France is", raw=True, stream=True, **asked)
    assert "".join(line.response for line in lines) == raw.response
    assert llama.generate("tiny", "").done_reason == "load"


def test_ollama_tells_of_the_model(llama: ollama.Client, server: Running):
    assert [model.model for model in llama.list().models] == ["tiny", "also"]
    assert llama.ps().models[0].context_length == 4096
    shown = llama.show("tiny")
    assert {"completion", "tools", "thinking"} <= set(shown.capabilities)
    assert shown.modelinfo["llama.context_length"] == 4096
    assert server.ask("GET", "/api/version")[1].keys() == {"version"}
    with pytest.raises(ollama.ResponseError, match="not found") as told:
        llama.chat("llama3", MESSAGES)
    assert told.value.status_code == 404
    for wrong in ({"options": {"mirostat": 2}}, {"options": {"temperature": 9}}):
        with pytest.raises(ollama.ResponseError) as told:
            llama.chat("tiny", MESSAGES, **wrong)
        assert told.value.status_code == 400
    body = {"model": "tiny", "messages": MESSAGES, "stream": False, "options": {"num_gpu": 1}, "keep_alive": 5}
    assert server.ask("POST", "/api/chat", body)[2]["x-ignored-fields"] == "options.num_gpu"


# -- schemas and tools that must be called, in every family ------------------------------------------------------------

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "maximum": 99, "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
WANTED = "Tell me of a person."


def test_a_schema_holds_in_every_family(client, claude, llama):
    schema = {"name": "person", "schema": PERSON, "strict": True}
    chat = {"model": "tiny", "messages": [{"role": "user", "content": WANTED}], "temperature": 0}
    form = {"type": "json_schema", "json_schema": schema}
    answers = [client.chat.completions.create(**chat, response_format=form).choices[0].message.content]
    pieces = client.chat.completions.create(**chat, response_format=form, stream=True)
    answers.append("".join(piece.choices[0].delta.content or "" for piece in pieces))

    asked = {"model": "tiny", "input": WANTED, "text": {"format": {"type": "json_schema", **schema}}, "temperature": 0}
    answers.append(client.responses.create(**asked).output_text)
    pieces = client.responses.create(**asked, stream=True)
    answers.append("".join(event.delta for event in pieces if event.type == "response.output_text.delta"))

    output = {"output_config": {"format": {"type": "json_schema", "schema": PERSON}}, "temperature": 0}
    asked = {"model": "tiny", "max_tokens": 200, "messages": chat["messages"], "extra_body": output}
    answers.append(claude.messages.create(**asked).content[0].text)
    with claude.messages.stream(**asked) as stream:
        answers.append("".join(stream.text_stream))

    asked = {"model": "tiny", "messages": chat["messages"], "format": PERSON, "options": {"temperature": 0}}
    answers.append(llama.chat(**asked).message.content)
    answers.append("".join(line.message.content for line in llama.chat(**asked, stream=True)))
    answers.append(llama.generate("tiny", WANTED, format=PERSON, options={"temperature": 0}).response)
    raw = llama.generate("tiny", "A person: ", raw=True, format=PERSON, options={"temperature": 0, "num_predict": 99})
    for answer in (*answers, raw.response):
        person = json.loads(answer)
        assert set(person) == {"name", "age"} and 0 <= person["age"] <= 99
    assert len(set(answers)) == 1


def test_a_tool_that_must_be_called_is_in_every_family(client, claude):
    question, tools = [{"role": "user", "content": QUESTION}], [{"type": "function", "function": FUNCTION}]
    chat = {"model": "tiny", "messages": question, "tools": tools, "temperature": 0}
    for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
        [call] = client.chat.completions.create(**chat, tool_choice=choice).choices[0].message.tool_calls
        assert call.function.name == "get_weather" and "city" in json.loads(call.function.arguments)
    asked = {"model": "tiny", "input": QUESTION, "tools": [{"type": "function", **FUNCTION}], "temperature": 0}
    for choice in ("required", {"type": "function", "name": "get_weather"}):
        [call] = client.responses.create(**asked, tool_choice=choice).output
        assert call.type == "function_call" and "city" in json.loads(call.arguments)
    for choice in ({"type": "any"}, {"type": "tool", "name": "get_weather"}):
        made = claude.messages.create(
            model="tiny", max_tokens=200, messages=question, tools=[TOOL], tool_choice=choice, **GREEDY
        )
        assert made.stop_reason == "tool_use" and "city" in made.content[0].input
    none = claude.messages.create(
        model="tiny", max_tokens=50, messages=question, tools=[TOOL], tool_choice={"type": "none"}, **GREEDY
    )
    assert [block.type for block in none.content] == ["text"]
