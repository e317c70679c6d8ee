"""The grid of ranks and its named axes: tp (tensor) and pp (pipeline).

    rank = pp_rank * tp_size + tp_rank

An axis of one rank does nothing and costs one comparison. Does not know: layers, what is sent.
Called by: layers (tp), worker (pp), executor (to make one).
"""

from dataclasses import dataclass, field

import torch
import torch.distributed as dist


@dataclass(slots=True)
class Axis:
    """One direction of the mesh: this rank's place on it and the collectives along it."""

    size: int = 1
    rank: int = 0
    group: object = None
    """torch's process group; None when size is 1."""
    ranks: tuple[int, ...] = (0,)
    """World ranks along the axis, in order."""
    in_order: bool = False
    """Sums are taken in order of rank, in float32: libraries add in an order that depends on how much there is."""

    def all_reduce(self, x: torch.Tensor) -> torch.Tensor:
        """Sum of `x` over the axis, in place; returns `x`."""
        if self.size == 1:
            return x
        # why: of two terms there is but one order
        if self.in_order and self.size > 2:
            first, *rest = self._gather(x)
            total = first.float()
            for part in rest:
                total += part
            return x.copy_(total)
        dist.all_reduce(x, group=self.group)
        return x

    def all_gather(self, x: torch.Tensor, dim: int = -1) -> torch.Tensor:
        """Every rank's `x` (equal shapes), joined along `dim` in order of rank."""
        return x if self.size == 1 else torch.cat(self._gather(x), dim)

    def _gather(self, x: torch.Tensor) -> list[torch.Tensor]:
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(self.size)]
        dist.all_gather(parts, x.contiguous(), group=self.group)
        return parts

    def broadcast(self, x: torch.Tensor, source: int) -> torch.Tensor:
        """`x` of rank `source` of the axis, on every rank; filled in place."""
        if self.size > 1:
            dist.broadcast(x, self.ranks[source], group=self.group)
        return x

    def send(self, x: torch.Tensor, to: int) -> None:
        """Send `x` to rank `to` of the axis; returns when `x` may be reused."""
        dist.send(x.contiguous(), self.ranks[to], group=self.group)

    def receive(self, x: torch.Tensor, source: int) -> torch.Tensor:
        """Fill `x` with what rank `source` of the axis sends."""
        dist.recv(x, self.ranks[source], group=self.group)
        return x

    @property
    def is_first(self) -> bool:
        """This rank is the first one along the axis."""
        return self.rank == 0

    @property
    def is_last(self) -> bool:
        """This rank is the last one along the axis."""
        return self.rank == self.size - 1


@dataclass(slots=True)
class Mesh:
    """Where this rank stands. The default is a world of one."""

    tp: Axis = field(default_factory=Axis)
    pp: Axis = field(default_factory=Axis)


def connect(
    tp_size: int,
    pp_size: int,
    rank: int,
    backend: str,
    init_method: str,
    timeout_s: float = 600.0,
    in_order: bool = False,
) -> Mesh:
    """Join the world of tp_size x pp_size ranks at `init_method` (tcp:// or file://). Blocks until all came.

    `in_order`: sums over an axis are the same to the bit whatever else is in them.
    """
    from datetime import timedelta

    if tp_size * pp_size == 1:
        return Mesh()
    dist.init_process_group(
        backend,
        init_method=init_method,
        world_size=tp_size * pp_size,
        rank=rank,
        timeout=timedelta(seconds=timeout_s),
    )
    # why: every rank must take part in making every group, in the same order
    tp_lines = [tuple(p * tp_size + t for t in range(tp_size)) for p in range(pp_size)]
    pp_lines = [tuple(p * tp_size + t for p in range(pp_size)) for t in range(tp_size)]
    return Mesh(_axis(tp_lines, rank, in_order), _axis(pp_lines, rank, in_order))


def _axis(lines: list[tuple[int, ...]], rank: int, in_order: bool) -> Axis:
    mine = Axis()
    for ranks in lines:
        group = dist.new_group(list(ranks)) if len(ranks) > 1 else None
        if rank in ranks:
            mine = Axis(len(ranks), ranks.index(rank), group, ranks, in_order)
    return mine


def disconnect() -> None:
    """Leave the world; safe to call in a world of one and twice."""
    if dist.is_initialized():
        dist.destroy_process_group()
