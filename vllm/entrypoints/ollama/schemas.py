"""The bodies of Ollama's API. Types are strict, sizes are bounded. Called by: translate, routes."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from vllm.entrypoints.openai.schemas import Refused, unknown_names

Text = Annotated[str, Field(max_length=2**24)]
REFUSED: Refused = {
    "suffix": ("no served model fills in the middle", ("",)),
    "images": ("only text is read", ([],)),
    "template": ("the server's template is used; see --chat-template", ("",)),
    "context": ("send the conversation to /api/chat; equal prefixes are found in the cache", ([],)),
    "width": ("only text is made", (0,)),
    "height": ("only text is made", (0,)),
    "steps": ("only text is made", (0,)),
}
LABELS = frozenset({"keep_alive", "_debug_render_only"})
"""Fields that change no answer: the model always stays."""


class Options(BaseModel):
    """How to sample. What sets up a model (num_gpu, num_thread, ...) is the server's to say."""

    model_config = ConfigDict(strict=True, extra="allow")
    num_predict: int | None = None
    num_ctx: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: str | Annotated[list[str], Field(max_length=256)] | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None


class Asked(BaseModel):
    """What both routes take."""

    model_config = ConfigDict(strict=True, extra="allow")
    model: str = Field(min_length=1, max_length=1024)
    stream: bool | None = None
    think: bool | str | None = None
    format: str | dict[str, Any] | None = None
    options: Options | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0)

    def unknown_fields(self) -> list[str]:
        """Names that neither Ollama nor we know. Raises RefusedError for one that we know and cannot serve."""
        return unknown_names(self, REFUSED, LABELS)


class GenerateRequest(Asked):
    """POST /api/generate."""

    prompt: Text = ""
    system: Text | None = None
    raw: bool | None = None


class ChatRequest(Asked):
    """POST /api/chat."""

    messages: Annotated[list[dict[str, Any]], Field(max_length=65536)] = []
    tools: Annotated[list[dict[str, Any]], Field(max_length=1024)] | None = None


class ShowRequest(BaseModel):
    """POST /api/show."""

    model_config = ConfigDict(strict=True, extra="allow")
    model: str | None = Field(None, max_length=1024)
    name: str | None = Field(None, max_length=1024)
    verbose: bool | None = None
