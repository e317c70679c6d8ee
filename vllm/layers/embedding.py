"""The two ends of a decoder: tokens to hidden states, hidden states to logits. Tables are cut over the vocabulary.

rank r of tp holds rows [r * R, (r + 1) * R) of R = V / size, or a little more where size does not divide V: the rows
behind the vocabulary are zeros. A lookup is summed over tp; logits are gathered and those of padding cut off.
"""

import torch

from vllm.layers.context import Context
from vllm.layers.linear import Linear
from vllm.ops.batch import Batch
from vllm.parts.decoder import Decoder, Embedding


class EmbeddingLayer:
    """Token table, scale, learned positions and projection."""

    def __init__(self, c: Context, part: Embedding, tied: bool) -> None:
        self._ops, self._axis, self._part = c.ops, c.mesh.tp, part
        table = c.take("embed.weight")
        self._num_rows = table.shape[0]
        self.packed: object = None
        """A tied table in the form that `ops.linear` reads; the head takes it from here."""
        if tied:
            self.packed = self._table = c.ops.helper("linear", "pack")(table)
            self._find = c.ops.helper("linear", "rows")
        else:
            self._table, self._find = table, c.ops.embedding
        self._positions = c.take("embed.positions") if part.positions else None
        proj = c.take_if("embed.proj")
        self._proj = None if proj is None else Linear(c, proj, exact=True)
        # why: Gemma multiplies by the scale as the activation's dtype can hold it
        self._scale = torch.tensor(part.scale, dtype=c.dtype, device=c.device)

    def __call__(self, batch: Batch) -> torch.Tensor:
        x = self._lookup(batch.token_ids)
        if self._part.scale != 1.0:
            x = x * self._scale
        if self._proj is not None:
            x = self._proj(x)
        if self._positions is not None:
            x = x + self._ops.embedding(batch.positions + self._part.position_offset, self._positions)
        return x

    @property
    def plain(self) -> torch.Tensor | None:
        """The table, where a row of it is all that a token becomes."""
        alone = self._axis.size == 1 and self._part.scale == 1.0 and self._proj is self._positions is None
        return self._table if alone and isinstance(self._table, torch.Tensor) else None

    def _lookup(self, ids: torch.Tensor) -> torch.Tensor:
        if self._axis.size == 1:
            return self._find(ids, self._table)
        local = ids - self._axis.rank * self._num_rows
        absent = (local < 0) | (local >= self._num_rows)
        x = self._find(local.masked_fill(absent, 0), self._table)
        return self._axis.all_reduce(x.masked_fill_(absent[:, None], 0.0))


class HeadLayer:
    """softcap(multiplier * (proj(x) W^T + b)) as float32 logits of the whole vocabulary, on every rank."""

    def __init__(self, c: Context, decoder: Decoder, packed: object = None) -> None:
        """`packed` is the tied table of this rank's embedding; without one the tensors are taken."""
        self._part, self._axis, self._softcap = decoder.head, c.mesh.tp, c.ops.softcap
        self._vocab = decoder.vocab
        proj = c.take_if("head.proj")
        self._proj = None if proj is None else Linear(c, proj, exact=True)
        if packed is None:
            packed = c.ops.helper("linear", "pack")(c.take("embed.weight" if decoder.head.tied else "head.weight"))
        self._packed, self._bias = packed, c.take_if("head.bias")
        self._map = c.ops.chosen["linear"].helpers.get("wide", c.ops.linear)

    def __call__(self, x: torch.Tensor, wide: bool = True) -> torch.Tensor:
        """[N, E] -> [N, V] float32; not `wide`: perhaps in the dtype of x, where that says the same."""
        x = x if self._proj is None else self._proj(x)
        logits = self._axis.all_gather(self._map(x, self._packed, self._bias))
        if logits.shape[-1] > self._vocab:
            logits = logits[..., : self._vocab].contiguous()
        if wide or self._part.multiplier != 1.0 or self._part.softcap is not None:
            logits = logits.float()
        part = self._part
        if part.multiplier != 1.0:
            logits = logits * part.multiplier
        if part.softcap is not None:
            logits = self._softcap(logits, part.softcap)
        return logits
