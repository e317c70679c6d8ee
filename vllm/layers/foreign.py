"""A network of transformers on our paged cache: its own modules, our attention.

    batch ─▶ body(input_ids [1, T], position_ids [1, T]) ─▶ hidden [T, E]
               └ every attention call ─▶ attention_function ─▶ ops.attention (call i reads and writes KV layer i)

All sequences of a step lie in one row of T tokens; transformers builds no mask, because the name under which our
function is registered has no mask function, so the op alone decides what a token may read. Does not know: how the
network was built or loaded (loading/foreign). Invariant: the calls of a forward pass come in the described order.
Called by: worker (the model), loading/foreign (registration, and `answering` to see the calls).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vllm.layers.build import dtype_of
from vllm.ops.attention import AttentionShape
from vllm.ops.batch import Batch
from vllm.ops.table import Kernels
from vllm.parts.foreign import Foreign, ForeignAttention
from vllm.protocol.kv import KVPlan
from vllm.protocol.plan import WorkerPlan

ATTENTION = "vllm"
"""Our name in transformers' registry. why: a plain word; flash, sdpa, paged| or a slash set off checks of its own."""


@dataclass(slots=True)
class Call:
    """One call of the attention function. Tensors are [1, heads, T, dim] of this step's tokens, rotary applied."""

    module: nn.Module
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    scale: float
    window: int | None
    softcap: float | None
    sinks: torch.Tensor | None
    rest: dict[str, Any]


Answer = Callable[[Call], torch.Tensor]
_here = threading.local()


@contextmanager
def answering(answer: Answer) -> Iterator[None]:
    """Attention calls of this thread go to `answer` ([1, T, heads, v_dim]) until the block ends."""
    before = vars(_here).get("answer")
    _here.answer = answer
    try:
        yield
    finally:
        _here.answer = before


def register() -> None:
    """Make our function known to transformers; must come before a network is built. Safe to call again."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, attention_function)


def attention_function(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **asks: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in every attention module. Returns ([1, T, heads, v_dim], no weights)."""
    scale = asks.pop("scaling", None)
    call = Call(
        module,
        query,
        key,
        value,
        attention_mask,
        scale=query.shape[-1] ** -0.5 if scale is None else scale,
        window=asks.pop("sliding_window", None),
        softcap=asks.pop("softcap", None),
        sinks=asks.pop("s_aux", None),
        rest=asks,
    )
    return _here.answer(call), None


class GivenHidden(nn.Module):
    """Stands where the body of a causal language model was: hands out hidden states that are already there.

    So the model's own forward pass makes the logits, whatever it does to them (scales, caps, biases), of chosen rows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hidden: torch.Tensor | None = None

    def forward(self, *_: Any, **__: Any) -> GivenHidden:
        """The output object that the head reads; it is this module."""
        return self

    @property
    def last_hidden_state(self) -> torch.Tensor:
        """[1, N, E]"""
        assert self.hidden is not None
        return self.hidden

    @property
    def decoder(self) -> GivenHidden:
        """Some heads reach into the body for its decoder."""
        return self

    def __getitem__(self, index: int) -> torch.Tensor:
        assert index == 0, "only hidden states are there"
        return self.last_hidden_state

    def __getattr__(self, name: str) -> Any:
        # why: heads hand on caches, router logits and the like, and None means there are none
        return super().__getattr__(name) if name.startswith("_") else None


class OpLinear(nn.Module):
    """An nn.Linear whose product is our op's."""

    def __init__(self, plain: nn.Linear, packed: object, ops: Kernels) -> None:
        super().__init__()
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self._run, self._packed = ops.linear, packed
        self._bias = None if plain.bias is None else plain.bias.data

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out]"""
        y: torch.Tensor = self._run(x.reshape(-1, self.in_features), self._packed, self._bias)
        return y.view(*x.shape[:-1], self.out_features)


def pack_linears(whole: nn.Module, bare: Collection[str], ops: Kernels, dtype: torch.dtype) -> None:
    """Replace the linear maps of `whole`, but for those named `bare`, where the chosen kernel has a form of its own.

    Their weights are handed over: a kernel may pack them in place.
    """
    pack = ops.helper("linear", "pack")
    for path, module in list(whole.named_modules()):
        if type(module) is not nn.Linear or path in bare or module.weight.dtype != dtype:
            continue
        packed = pack(module.weight.data)
        if packed is not module.weight.data and not isinstance(packed, torch.Tensor):
            above, _, leaf = path.rpartition(".")
            setattr(whole.get_submodule(above), leaf, OpLinear(module, packed, ops))


class ForeignModel:
    """The forward pass; the same interface as `layers.build.Model`."""

    def __init__(
        self,
        foreign: Foreign,
        whole: nn.Module,
        worker_plan: WorkerPlan,
        kv_plan: KVPlan,
        slabs: list[torch.Tensor],
        ops: Kernels,
    ) -> None:
        """`whole` is a causal language model of transformers with its weights on the device; it is taken apart."""
        self.hidden_size, self.vocab = foreign.hidden, foreign.vocab
        self.dtype = dtype_of(worker_plan.dtype)
        pack_linears(whole, foreign.bare_linears, ops, self.dtype)
        self._body, self._head, self._given = take_apart(whole)
        self._steps = [_Step(call, i, kv_plan, slabs, ops, self.dtype) for i, call in enumerate(foreign.calls)]

    def __call__(
        self, batch: Batch, hidden: torch.Tensor | None = None, only: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Hidden states [T, E] after the final norm, or those of the tokens `only`."""
        assert hidden is None, "a foreign network is one pipeline stage"
        steps = iter(self._steps)
        with answering(lambda call: next(steps).answer(call, batch)):
            out = self._body(
                input_ids=batch.token_ids[None],
                position_ids=batch.positions[None],
                attention_mask=None,
                use_cache=False,
                return_dict=True,
            )
        assert next(steps, None) is None, "the network made fewer attention calls than it was described with"
        return out[0][0] if only is None else out[0][0][only]

    def logits(self, hidden: torch.Tensor, wide: bool = True) -> torch.Tensor:
        """[N, E] -> [N, V] float32."""
        return head_logits(self._head, self._given, hidden)


def take_apart(whole: nn.Module) -> tuple[nn.Module, nn.Module, GivenHidden]:
    """(body, the model with a gap where the body was, what fills the gap)."""
    body = whole.base_model
    assert isinstance(body, nn.Module) and body is not whole, f"{type(whole).__name__} has no body of its own"
    given = GivenHidden()
    setattr(whole, str(whole.base_model_prefix), given)
    return body, whole, given


def head_logits(head: nn.Module, given: GivenHidden, hidden: torch.Tensor) -> torch.Tensor:
    """[N, E] -> [N, V] float32."""
    given.hidden = hidden[None]
    # why: nobody reads the tokens, but some heads look at how many there are
    ids = torch.zeros(1, hidden.shape[0], dtype=torch.int64, device=hidden.device)
    try:
        return head(input_ids=ids, use_cache=False, return_dict=True).logits[0].float()
    finally:
        given.hidden = None


class _Step:
    """Attention call i of a forward pass: its shape, and its place in the cache."""

    def __init__(
        self,
        call: ForeignAttention,
        i: int,
        kv_plan: KVPlan,
        slabs: list[torch.Tensor],
        ops: Kernels,
        dtype: torch.dtype,
    ) -> None:
        self._group, slab = kv_plan.place(i)
        self._shape = AttentionShape(
            call.heads, call.kv_heads, call.dim, call.v_dim, call.scale, call.window, call.softcap
        )
        block_size = kv_plan.groups[self._group].block_size
        layout = ops.helper("attention", "layout")
        self._dtype = dtype
        self._cache = layout(slabs[slab], dtype_of(kv_plan.dtype), block_size, self._shape)
        self._attend, self._call = ops.attention, call

    def answer(self, call: Call, batch: Batch) -> torch.Tensor:
        """[1, T, heads, v_dim]"""
        said = self._call
        assert (call.query.shape[1], call.key.shape[1]) == (said.heads, said.kv_heads), (
            f"attention call of {type(call.module).__name__} is not the described {said.module}"
        )
        # why: a network may normalise queries and keys in float32 and leave them so; kernels want one dtype
        q, k, v = (x[0].transpose(0, 1).to(self._dtype).contiguous() for x in (call.query, call.key, call.value))
        sinks = None if call.sinks is None else call.sinks.float()
        out = self._attend(q, k, v, self._cache, batch, batch.groups[self._group], self._shape, sinks)
        return out.to(call.query.dtype)[None]
