"""Which model, and how it is to be read: what the user said about the network itself.

Does not know: what the checkpoint holds (planning.resolve decides "auto"). Callers: planning, loading, tokenizer,
entrypoints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vllm.config.knob import knob, settle
from vllm.errors import ValidationError

DTYPES = ("auto", "half", "float16", "bfloat16", "float", "float32")
LOGPROBS_MODES = ("raw_logprobs", "processed_logprobs", "raw_logits", "processed_logits")
LOAD_FORMATS = ("auto", "hf", "safetensors", "pt", "dummy")
TOKENIZER_MODES = ("auto", "hf", "slow", "mistral")
MODEL_IMPLS = ("auto", "vllm", "transformers")

RUNNERS = ("auto", "generate", "pooling")
CONVERTS = ("auto", "none", "embed", "classify")
TASKS = ("auto", "generate", "embed", "embedding", "classify", "score", "reward")


@dataclass(frozen=True, kw_only=True)
class ModelArgs:
    """The model section. `None` for `model` is the built-in model; for the rest it means: as the checkpoint says."""

    model: str | None = knob(None, "str", "local folder or hub id; without it the built-in model")
    tokenizer: str | None = knob(None, "str", "tokenizer folder or hub id, when not the model's own")
    tokenizer_mode: str = knob("auto", "str", "how to read the tokenizer", choices=TOKENIZER_MODES)
    skip_tokenizer_init: bool = knob(False, "bool", "no tokenizer: prompts are token ids, output has no text")
    trust_remote_code: bool = knob(False, "bool", "run Python code that comes with the model")
    dtype: str = knob("auto", "str", "type of weights and activations", choices=DTYPES)
    seed: int = knob(0, "int", "start of the stream of seeds for requests without one", low=-(2**63), high=2**64 - 1)
    revision: str | None = knob(None, "str", "branch, tag or commit of the model on the hub")
    tokenizer_revision: str | None = knob(None, "str", "branch, tag or commit of the tokenizer on the hub")
    code_revision: str | None = knob(None, "str", "branch, tag or commit of the model's own code on the hub")
    max_model_len: int | str | None = knob(
        None, "int", "longest sequence, prompt and output; -1 or auto: the most that fits", low=-1, words=("auto",)
    )
    quantization: str | None = knob(None, "str", "quantize at load; a quantized checkpoint says so itself", short="q")
    enforce_eager: bool = knob(False, "bool", "no CUDA graphs")
    max_logprobs: int = knob(20, "int", "most logprobs a request may ask for; -1: no limit", low=-1)
    logprobs_mode: str = knob("raw_logprobs", "str", "what logprobs mean", choices=LOGPROBS_MODES)
    hf_overrides: Any = knob(None, "any", "values that replace those of config.json (a dict, or a callable)")
    generation_config: str = knob("auto", "str", "auto: sampling defaults of the model; vllm: ours; else a folder")
    override_generation_config: dict[str, Any] | None = knob(
        None, "json", "values over those of generation_config.json"
    )
    served_model_name: tuple[str, ...] | None = knob(None, "strings", "names the server answers to")
    model_impl: str = knob("auto", "str", "our description, or the transformers fallback", choices=MODEL_IMPLS)
    runner: str = knob("auto", "str", "to generate text, or to make embeddings", choices=RUNNERS)
    convert: str = knob("auto", "str", "embed: make embeddings with a model that generates", choices=CONVERTS)
    task: str = knob("auto", "str", "an older word for runner and convert", choices=TASKS)
    pooler_config: dict[str, Any] | None = knob(None, "json", "how states become an embedding, over what is stored")
    chat_template: str | None = knob(None, "str", "a template file, or the template itself")
    reasoning_parser: str = knob(
        "auto", "str", "how the model writes its thoughts; auto: as its chat template shows; none: they are text"
    )
    hf_token: Any = knob(None, "any", "token for the hub; True: the one stored by huggingface-cli login", repr=False)
    download_dir: str | None = knob(None, "str", "folder for downloads, when not the hub's own cache")
    logits_processors: Any = knob(
        (), "any", "logits processors for every request: classes, or package.module:Class; they run in the engine"
    )
    worker_extension_cls: str | None = knob(
        None, "str", "package.module.Class whose methods collective_rpc may call; on one device"
    )
    load_format: str = knob("auto", "str", "kind of weight files; dummy: random weights", choices=LOAD_FORMATS)
    deterministic: bool = knob(False, "bool", "same request, same bits, whoever shares the batch")

    def __post_init__(self) -> None:
        settle(self)
        given = self.logits_processors
        object.__setattr__(self, "logits_processors", tuple(given) if isinstance(given, (list, tuple)) else (given,))
        if self.max_model_len == 0:
            raise ValidationError.of("max_model_len", 0, "at least 1, or -1 / 'auto' for the most that fits")
        if self.model is not None and not self.model.strip():
            raise ValidationError.of(
                "model", self.model, "a folder or a hub id", "Leave it out for the built-in model."
            )
        if isinstance(self.hf_overrides, str):
            raise ValidationError.of("hf_overrides", self.hf_overrides, "a dict or a callable")
