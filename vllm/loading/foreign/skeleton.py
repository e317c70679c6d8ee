"""A network of transformers without weights: parameters take no memory, computed buffers (rotary frequencies) are real.

    built as usual ─ every parameter goes to the meta device as it is registered ─▶ rotary embeddings fixed

Does not know files or the cache. Invariant: afterwards a forward pass depends on tokens and positions alone (rotary
frequencies that transformers would stretch with the longest sequence seen are fixed by `max_len`, as in parts/rope).
Called by: describe, build.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from vllm.errors import ModelLoadError
from vllm.layers.foreign import ATTENTION, register
from vllm.loading.foreign.config import attribute, in_one_line, make_config, model_class, refused

_building = threading.Lock()


def make_skeleton(
    folder: Path, data: dict[str, Any], dtype: torch.dtype, max_len: int, trust_remote_code: bool = False
) -> nn.Module:
    """The causal language model of config.json `data`. Raises RefusedError, ModelLoadError."""
    config = make_config(folder, data, trust_remote_code)
    kind = model_class(folder, config, data, trust_remote_code)
    if not attribute(kind, "_supports_attention_backend", False):
        raise refused(
            f"{kind.__name__} of transformers computes attention in its own way (it does not say "
            f"_supports_attention_backend), so it cannot run on a paged cache."
        )
    if attribute(kind, "_is_stateful", False):
        raise refused(f"{kind.__name__} keeps a recurrent state, which a paged cache of keys and values cannot hold.")
    register()
    try:
        with _building, parameters_on_meta(), EmptyOnMeta():
            whole: nn.Module = kind._from_config(config, dtype=dtype, attn_implementation=ATTENTION)
    except Exception as error:
        why = f"transformers cannot build {kind.__name__} from this config.json: {in_one_line(error)}"
        raise ModelLoadError(why) from None
    whole.eval().requires_grad_(False)
    fix_rotary(whole, max_len)
    return whole


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Parameters that this thread registers take no memory; buffers are real, since no checkpoint holds them."""
    original, thread = nn.Module.register_parameter, threading.get_ident()

    def on_meta(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        if param is not None and param.device.type != "meta" and threading.get_ident() == thread:
            # why: a tied parameter comes a second time and must stay the same object, so meta ones pass unchanged
            param = nn.Parameter(param.data.to("meta"), requires_grad=False)
        original(module, name, param)

    nn.Module.register_parameter = on_meta  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = original  # type: ignore[method-assign]


class EmptyOnMeta(TorchFunctionMode):
    """`torch.empty` takes no memory: parameters start so, and those of large models would not even fit for a moment."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty and kwargs.get("device") is None and "out" not in kwargs:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def fix_rotary(whole: nn.Module, max_len: int) -> None:
    """Rotary kinds that depend on the longest sequence so far (dynamic, longrope) get the frequencies of `max_len`."""
    for module in whole.modules():
        kinds = attribute(module, "rope_type")
        if kinds is None or attribute(module, "config") is None:
            continue
        if isinstance(kinds, str):
            if _fix_one(module, kinds, "", max_len):
                module.rope_type = "fixed"
        elif isinstance(kinds, dict):
            module.rope_type = {
                layer: "fixed" if _fix_one(module, kind, layer, max_len) else kind for layer, kind in kinds.items()
            }


def _fix_one(module: nn.Module, kind: str, layer: str, max_len: int) -> bool:
    """Whether frequencies of this kind had to be fixed; they now are those of a sequence of `max_len` tokens."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    if "dynamic" not in kind and kind != "longrope":
        return False
    prefix = f"{layer}_" if layer else ""
    # why: the published code leaves frequencies as they are up to the length the model was made for
    length = max(max_len, module.config.max_position_embeddings) if "dynamic" in kind else max_len
    extra = {"layer_type": layer} if layer else {}
    frequencies, factor = ROPE_INIT_FUNCTIONS[kind](module.config, torch.device("cpu"), seq_len=length, **extra)
    module.register_buffer(f"{prefix}inv_freq", frequencies, persistent=False)
    setattr(module, f"{prefix}attention_scaling", factor)
    return True
