"""The bodies of Anthropic's Messages API. Types are strict, sizes are bounded. Called by: translate, routes."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vllm.entrypoints.openai.schemas import Refused, unknown_names

Blocks = Annotated[list[dict[str, Any]], Field(max_length=65536)]
Content = Annotated[str, Field(max_length=2**24)] | Blocks
REFUSED: Refused = {
    "container": ("there are no containers", ()),
    "mcp_servers": ("there are no built-in tools", ([],)),
    "context_management": ("conversations are taken as they are", ({}, {"edits": []})),
}
LABELS = frozenset({"service_tier", "inference_geo", "cache_control", "betas"})
"""Fields that change no answer; every prompt is cached anyway."""


class Message(BaseModel):
    """One message of a conversation."""

    model_config = ConfigDict(strict=True, extra="allow")
    role: Literal["user", "assistant", "system"]
    content: Content


class Tool(BaseModel):
    """A tool that the client runs."""

    model_config = ConfigDict(strict=True, extra="allow")
    name: str = Field(min_length=1, max_length=256)
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    type: str | None = None


class ToolChoice(BaseModel):
    """Whether tools are called."""

    model_config = ConfigDict(strict=True, extra="allow")
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(BaseModel):
    """Whether the model thinks first."""

    model_config = ConfigDict(strict=True, extra="allow")
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = Field(None, ge=1)


class Metadata(BaseModel):
    """Who asks."""

    model_config = ConfigDict(strict=True, extra="allow")
    user_id: str | None = Field(None, max_length=1024)


class OutputConfig(BaseModel):
    """The form of the answer, and the effort."""

    model_config = ConfigDict(strict=True, extra="allow")
    effort: str | None = Field(None, max_length=32)
    format: dict[str, Any] | None = None


class CountRequest(BaseModel):
    """POST /v1/messages/count_tokens."""

    model_config = ConfigDict(strict=True, extra="allow")
    model: str = Field(max_length=1024)
    messages: Annotated[list[Message], Field(min_length=1, max_length=65536)]
    system: Content | None = None
    tools: Annotated[list[Tool], Field(max_length=1024)] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: dict[str, Any] | None = None

    def unknown_fields(self) -> list[str]:
        """Names that neither Anthropic nor we know. Raises RefusedError for one that we know and cannot serve."""
        return unknown_names(self, REFUSED, LABELS)


class MessagesRequest(CountRequest):
    """POST /v1/messages."""

    max_tokens: int = Field(ge=1)
    stop_sequences: Annotated[list[str], Field(max_length=256)] | None = None
    stream: bool | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = None
    top_k: int | None = None
    metadata: Metadata | None = None
