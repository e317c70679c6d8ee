"""The bodies of requests: OpenAI's fields, and vLLM's beside them.

Types are strict (a string is no number), sizes are bounded; what values mean is checked by SamplingParams. A field that
OpenAI knows and we cannot serve is in REFUSED: it may only say what it says by default. Called by: routes.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vllm.entrypoints.openai.errors import refused

Text = Annotated[str, Field(max_length=2**24)]
Ids = Annotated[list[int], Field(max_length=2**22)]
MAX_PROMPTS = 1024
MAX_CHOICES = 4096

Refused = dict[str, tuple[str, tuple[Any, ...]]]
"""Field -> why it cannot be served, and the values that ask for nothing."""
REFUSED: Refused = {
    "suffix": ("no served model fills in the middle", ("",)),
    "prompt_embeds": ("prompts are text or token ids", ()),
    "use_beam_search": ("beam search is offline only, LLM.beam_search", (False,)),
    "length_penalty": ("it belongs to beam search", (1, 1.0)),
    "functions": ("use tools", ([],)),
    "function_call": ("use tool_choice", ("none", "auto")),
    "audio": ("only text is made", ()),
    "modalities": ("only text is made", (["text"],)),
    "prediction": ("predicted outputs are not used", ()),
    "web_search_options": ("nothing here searches the web", ()),
    "verbosity": ("no served model takes it", ("medium",)),
    "store": ("answers are not stored", (False,)),
    "chat_template": ("the server's template is used; see --chat-template", ()),
    "documents": ("put documents into the messages", ([],)),
    "media_io_kwargs": ("only text is read", ({},)),
    "mm_processor_kwargs": ("only text is read", ({},)),
    "kv_transfer_params": ("there is one engine", ({},)),
    "logprob_token_ids": ("it is not built yet", ()),
    "thinking_token_budget": ("it is not built yet", ()),
    "watermarking": ("it is not built yet", (False,)),
}
LABELS = frozenset({"metadata", "safety_identifier", "prompt_cache_key", "service_tier", "prompt_cache_retention"})
"""Fields that mark a request for OpenAI's own books and change no answer."""


GUIDED = frozenset(f"guided_{kind}" for kind in ("json", "regex", "choice", "grammar", "whitespace_pattern"))
"""vLLM's older names of structured outputs."""


def unknown_names(body: BaseModel, refuse: Refused, labels: frozenset[str]) -> list[str]:
    """Fields of a body that nobody knows. RefusedError for one of `refuse` that asks for something."""
    unknown = []
    for name, value in (body.model_extra or {}).items():
        if name in refuse:
            why, harmless = refuse[name]
            if value is not None and value not in harmless:
                raise refused(name, why)
        elif name not in labels:
            unknown.append(name)
    return unknown


class StreamOptions(BaseModel):
    """When a stream says how many tokens it took."""

    model_config = ConfigDict(strict=True, extra="allow")
    include_usage: bool = False
    continuous_usage_stats: bool = False


class ResponseFormat(BaseModel):
    """The form of the answer."""

    model_config = ConfigDict(extra="allow")
    type: str
    json_schema: dict[str, Any] | None = None


class Generation(BaseModel):
    """What both completion routes take."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str | None = Field(None, max_length=1024)
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    seed: int | None = None
    stop: str | Annotated[list[str], Field(max_length=256)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: dict[str, Any] | None = None
    repetition_detection: dict[str, int] | None = None
    user: str | None = Field(None, max_length=1024)

    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    stop_token_ids: Ids | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    truncate_prompt_tokens: int | None = None
    allowed_token_ids: Ids | None = None
    bad_words: Annotated[list[str], Field(max_length=1024)] | None = None
    prompt_logprobs: int | None = None
    add_special_tokens: bool | None = None
    priority: int = Field(0, ge=-(2**31), le=2**31)
    cache_salt: str | None = Field(None, min_length=1, max_length=1024)
    request_id: str | None = Field(None, min_length=1, max_length=128, pattern=r"^[\w.:-]+$")
    return_tokens_as_token_ids: bool | None = None
    return_token_ids: bool | None = None
    vllm_xargs: dict[str, Any] | None = None

    def unknown_fields(self) -> list[str]:
        """Names that neither OpenAI nor we know. Raises RefusedError for one that we know and cannot serve."""
        return unknown_names(self, REFUSED, LABELS | GUIDED)


class CompletionRequest(Generation):
    """POST /v1/completions."""

    prompt: Text | list[Text] | Ids | list[Ids]
    max_tokens: int | None = 16
    echo: bool = False
    logprobs: int | None = None
    best_of: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _names_embeddings(cls, given: Any) -> Any:
        """Who sends embeddings sends no prompt; what is wrong is not the prompt."""
        if isinstance(given, dict) and given.get("prompt_embeds"):
            raise refused("prompt_embeds", REFUSED["prompt_embeds"][0])
        return given


class TokenSampling(Generation):
    """How to generate, where tokens are all that is wanted."""

    max_tokens: int | None = None
    logprobs: int | None = None
    detokenize: bool | None = None
    extra_args: dict[str, Any] | None = None


class TokenRequest(BaseModel):
    """POST /inference/v1/generate."""

    model_config = ConfigDict(strict=True, extra="allow")

    token_ids: Annotated[list[int], Field(min_length=1, max_length=2**22)]
    sampling_params: TokenSampling
    model: str | None = Field(None, max_length=1024)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    output_mode: Literal["tokens", "text"] = "tokens"
    return_token_ids: bool | None = None
    request_id: str | None = Field(None, min_length=1, max_length=128, pattern=r"^[\w.:-]+$")
    priority: int = Field(0, ge=-(2**31), le=2**31)
    cache_salt: str | None = Field(None, min_length=1, max_length=1024)


class ChatBatchRequest(BaseModel):
    """POST /v1/chat/completions/batch: the fields of a chat request, with many conversations as its messages."""

    model_config = ConfigDict(strict=True, extra="allow")

    messages: Annotated[
        list[Annotated[list[dict[str, Any]], Field(min_length=1, max_length=65536)]],
        Field(min_length=1, max_length=MAX_PROMPTS),
    ]
    stream: Literal[False] | None = None


class EmbeddingRequest(BaseModel):
    """POST /v1/embeddings."""

    model_config = ConfigDict(strict=True, extra="allow")

    input: Text | list[Text] | Ids | list[Ids]
    model: str | None = Field(None, max_length=1024)
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = Field(None, max_length=1024)
    truncate_prompt_tokens: int | None = None
    use_activation: bool | None = None
    add_special_tokens: bool | None = None
    priority: int = Field(0, ge=-(2**31), le=2**31)
    cache_salt: str | None = Field(None, min_length=1, max_length=1024)
    request_id: str | None = Field(None, min_length=1, max_length=128, pattern=r"^[\w.:-]+$")

    def unknown_fields(self) -> list[str]:
        """Names that nobody knows."""
        return [name for name in self.model_extra or {} if name not in LABELS]


class Function(BaseModel):
    """A function that a model may call."""

    model_config = ConfigDict(extra="allow")
    name: str = Field(max_length=256)
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(BaseModel):
    """A tool, as the template sees it."""

    model_config = ConfigDict(extra="allow")
    type: str = "function"
    function: Function


class ChatRequest(Generation):
    """POST /v1/chat/completions."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=65536)]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0)
    tools: Annotated[list[Tool], Field(max_length=1024)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = Field(None, max_length=32)
    include_reasoning: bool = True
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None
    echo: bool = False


class TokenizeRequest(BaseModel):
    """POST /tokenize: a prompt, or messages."""

    model_config = ConfigDict(strict=True, extra="allow")
    model: str | None = Field(None, max_length=1024)
    prompt: Text | None = None
    messages: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=65536)] | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] | None = None
    tools: Annotated[list[Tool], Field(max_length=1024)] | None = None


class DetokenizeRequest(BaseModel):
    """POST /detokenize."""

    model_config = ConfigDict(strict=True, extra="allow")
    model: str | None = Field(None, max_length=1024)
    tokens: Ids
