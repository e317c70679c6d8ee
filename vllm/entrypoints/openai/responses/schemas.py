"""The body of a request for a response. Types are strict, sizes are bounded. Called by: translate, routes."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vllm.entrypoints.openai.schemas import Ids, Refused, unknown_names

REFUSED: Refused = {
    "conversation": ("conversations are not kept; use previous_response_id", ()),
    "prompt": ("prompts are not kept; send instructions and input", ()),
    "context_management": ("conversations are taken as they are", ([], {})),
    "moderation": ("nothing here moderates", ()),
}
LABELS = frozenset(
    {
        *("safety_identifier", "prompt_cache_key", "prompt_cache_retention", "service_tier"),
        *("max_tool_calls", "stream_options", "prompt_cache_options"),
    }
)
"""Fields that change no answer here: marks for OpenAI's books, and limits of tools that are not built in."""
LOGPROBS = "message.output_text.logprobs"


class Reasoning(BaseModel):
    """How much to think first."""

    model_config = ConfigDict(strict=True, extra="allow")
    effort: str | None = Field(None, max_length=32)
    summary: str | None = None


class TextConfig(BaseModel):
    """The form of the text."""

    model_config = ConfigDict(strict=True, extra="allow")
    format: dict[str, Any] | None = None
    verbosity: str | None = None


class InputRequest(BaseModel):
    """POST /v1/responses/input_tokens."""

    model_config = ConfigDict(strict=True, extra="allow")
    model: str | None = Field(None, max_length=1024)
    input: Annotated[str, Field(max_length=2**24)] | Annotated[list[dict[str, Any]], Field(max_length=65536)] = ""
    instructions: Annotated[str, Field(max_length=2**24)] | None = None
    previous_response_id: str | None = Field(None, max_length=256)
    tools: Annotated[list[dict[str, Any]], Field(max_length=1024)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    text: TextConfig | None = None
    truncation: Literal["auto", "disabled"] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    def unknown_fields(self) -> list[str]:
        """Names that neither OpenAI nor we know. Raises RefusedError for one that we know and cannot serve."""
        return unknown_names(self, REFUSED, LABELS)


class ResponsesRequest(InputRequest):
    """POST /v1/responses."""

    background: bool | None = None
    include: Annotated[list[str], Field(max_length=64)] | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    metadata: dict[str, str] | None = None
    store: bool | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = Field(None, ge=0)
    user: str | None = Field(None, max_length=1024)

    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: str | Annotated[list[str], Field(max_length=256)] | None = None
    stop_token_ids: Ids | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = None
    logit_bias: dict[str, float] | None = None
    priority: int = Field(0, ge=-(2**31), le=2**31)
    cache_salt: str | None = Field(None, min_length=1, max_length=1024)
    structured_outputs: dict[str, Any] | None = None
    include_reasoning: bool = True


SAME = (
    *("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed"),
    *("stop", "stop_token_ids", "ignore_eos", "min_tokens", "logit_bias", "priority", "cache_salt", "user"),
    "structured_outputs",
)
"""Fields that mean the same as in a chat request."""
