"""Looks at a network of transformers by running it once on tensors without memory: what each attention call asks for,
and how much the step needs. What cannot run on the paged cache is refused here, with one sentence.

Does not read weights. Invariant: the result is plain data. Called by: assembly, in the engine process.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from vllm.errors import RefusedError
from vllm.layers.foreign import Call, answering, head_logits, take_apart
from vllm.loading.foreign.config import attribute, in_one_line, refused
from vllm.loading.foreign.skeleton import make_skeleton
from vllm.parts.foreign import Foreign, ForeignAttention

_TOKENS = 3
_EXPERTS = "vllm_shapes"
# why: tensors that modules hand to every attention function and that say nothing the op does not know
_HARMLESS = ("position_ids", "cache_position", "position_embeddings")


def describe_foreign(folder: Path | str, config: dict[str, Any], *, trust_remote_code: bool = False) -> Foreign:
    """The description of the network in `config` (config.json as a dictionary, the user's overrides in it).

    Raises RefusedError, ModelLoadError, UnknownArchitectureError, each with one sentence.
    """
    folder = Path(folder)
    whole = make_skeleton(folder, config, torch.float32, max_len=1, trust_remote_code=trust_remote_code)
    seen = _look(whole)
    text = whole.config.get_text_config()
    _check_layers(whole, seen, text)
    return Foreign(
        architecture=type(whole).__name__,
        config=json.dumps(config, sort_keys=True),
        trust_remote_code=trust_remote_code,
        hidden=seen.hidden,
        vocab=seen.vocab,
        max_positions=_max_positions(text),
        num_parameters=seen.num_parameters,
        widest=seen.widest,
        calls=tuple(seen.calls),
        bare_linears=frozenset(seen.bare),
    )


class _Seen:
    """What one forward pass showed."""

    def __init__(self, whole: nn.Module) -> None:
        self.calls: list[ForeignAttention] = []
        self.hidden = self.vocab = self.widest = 0
        self.bare: set[str] = set()
        self.num_parameters = sum(p.numel() for p in whole.parameters())
        self._name = type(whole).__name__
        self._paths = {id(module): path for path, module in whole.named_modules()}

    def attention(self, call: Call) -> torch.Tensor:
        """Note a call and give it a result of the right shape."""
        self._check(call)
        _, heads, tokens, dim = call.query.shape
        kv_heads, v_dim = call.key.shape[1], call.value.shape[-1]
        self.calls.append(
            ForeignAttention(
                module=self._paths.get(id(call.module), type(call.module).__name__),
                heads=heads,
                kv_heads=kv_heads,
                dim=dim,
                v_dim=v_dim,
                scale=float(call.scale),
                window=call.window,
                softcap=call.softcap,
                sinks=call.sinks is not None,
            )
        )
        self.widest = max(self.widest, (2 * heads + kv_heads) * dim + (heads + kv_heads) * v_dim)
        return call.query.new_empty(1, tokens, heads, v_dim)

    def experts(self, module: nn.Module, hidden: torch.Tensor, index: torch.Tensor, *_: Any) -> torch.Tensor:
        """In place of expert layers, whose routing depends on values: note how much room they need."""
        inner = max((p.shape[-2] + p.shape[-1] for p in module.parameters() if p.dim() == 3), default=0)
        self.widest = max(self.widest, index.shape[-1] * 2 * inner)
        return torch.empty_like(hidden)

    def output(self, module: nn.Module, _: Any, out: Any) -> None:
        """A hook of every small module: the size of its result."""
        if isinstance(out, torch.Tensor):
            self.widest = max(self.widest, 3 * (out.numel() // _TOKENS))

    def _check(self, call: Call) -> None:
        where = f"{self._name} ({type(call.module).__name__})"
        causal = call.rest.get("is_causal")
        if causal is None:
            causal = attribute(call.module, "is_causal", True)
        if causal is False:
            raise refused(f"{where} attends to later tokens too, so it is no decoder.")
        if call.mask is not None:
            raise refused(f"{where} makes an attention mask of its own, which a paged cache ignores.")
        if call.query.shape[2] != call.key.shape[2]:
            raise refused(f"{where} attends to more than the tokens it is given.")
        if call.query.shape[1] % call.key.shape[1]:
            raise refused(f"{where} has query heads that its key heads do not divide.")
        for name, value in call.rest.items():
            if isinstance(value, torch.Tensor) and name not in _HARMLESS:
                raise refused(f"{where} gives attention a {name!r}, which a paged cache ignores.")


def _look(whole: nn.Module) -> _Seen:
    """Run the network on nothing."""
    from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

    seen, name = _Seen(whole), type(whole).__name__
    if whole.base_model is whole:
        raise refused(f"{name} has no body that can run without its head.")
    whole.to("meta")
    _watch_linears(whole, seen.bare)
    body, head, given = take_apart(whole)
    hooks = [m.register_forward_hook(seen.output) for m in body.modules() if not any(m.children())]
    ALL_EXPERTS_FUNCTIONS.register(_EXPERTS, seen.experts)
    for module in body.modules():
        config = attribute(module, "config")
        if config is not None:
            config._experts_implementation = _EXPERTS
    ids = torch.zeros(1, _TOKENS, dtype=torch.int64, device="meta")
    try:
        with torch.no_grad(), answering(seen.attention), _NothingFound():
            out = body(input_ids=ids, position_ids=ids, attention_mask=None, use_cache=False, return_dict=True)
            seen.hidden = out[0].shape[-1]
            seen.vocab = head_logits(head, given, out[0][0]).shape[-1]
    except RefusedError:
        raise
    except Exception as error:
        raise refused(
            f"The transformers fallback cannot follow the forward pass of {name}: {in_one_line(error)}"
        ) from error
    finally:
        del ALL_EXPERTS_FUNCTIONS._global_mapping[_EXPERTS]
        for hook in hooks:
            hook.remove()
    return seen


class _NothingFound(TorchDispatchMode):
    """Searches of tensors without values find nothing, so loops over chosen experts end at once."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.nonzero.default:
            return torch.empty(0, args[0].dim(), dtype=torch.int64, device="meta")
        return func(*args, **(kwargs or {}))


class _Watched(nn.Linear):
    """A linear map without arithmetic that notes when its weight is read from outside."""

    path: str
    bare: set[str]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out], values undefined."""
        assert x.shape[-1] == self.in_features
        return x.new_empty(*x.shape[:-1], self.out_features)

    def __getattr__(self, name: str) -> Any:
        if name in ("weight", "bias"):
            self.bare.add(self.path)
        return super().__getattr__(name)


def _watch_linears(whole: nn.Module, bare: set[str]) -> None:
    """Note in `bare` the linear maps that share their weight, and from now on those whose weight is read."""
    tied = attribute(whole, "all_tied_weights_keys") or {}
    shared = {name.rpartition(".")[0] for pair in tied.items() for name in pair}
    owners: dict[int, str] = {}
    for path, module in whole.named_modules():
        for param in module._parameters.values():
            first = owners.setdefault(id(param), path)
            if param is not None and first != path:
                shared |= {first, path}
    for path, module in whole.named_modules():
        if type(module) is nn.Linear:
            module.__class__ = _Watched
            module.path, module.bare = path, bare
            if path in shared:
                bare.add(path)


def _check_layers(whole: nn.Module, seen: _Seen, text: Any) -> None:
    """Every layer must have called attention; where config.json gives it a window, it has it."""
    name, layers = type(whole).__name__, attribute(text, "num_hidden_layers")
    if not seen.calls:
        raise refused(f"{name} never calls an attention function that can be replaced.")
    if layers and len(seen.calls) < layers:
        raise refused(
            f"{name} has {layers} layers and {len(seen.calls)} that attend; what the others remember of earlier tokens "
            f"is not in a paged cache."
        )
    types = attribute(text, "layer_types") or ()
    if len(types) != len(seen.calls):
        return
    for i, (kind, call) in enumerate(zip(types, seen.calls, strict=True)):
        if kind == "sliding_attention" and call.window is None:
            # why: some networks leave the window to the mask that nobody builds here
            seen.calls[i] = replace(call, window=text.sliding_window)
        elif kind != "sliding_attention" and call.window is not None:
            raise refused(f"{name} says that {call.module} is {kind} and calls attention with window {call.window}.")


def _max_positions(text: Any) -> int:
    for key in ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length"):
        value = attribute(text, key)
        if isinstance(value, int) and value > 0:
            return value
    return 2048
