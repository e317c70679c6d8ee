"""Every description takes every tensor of a checkpoint that transformers wrote, and has room for no more."""

from pathlib import Path

import pytest
import torch

from tests.contract.models import reference, save, tiny_configs
from vllm.loading.loader import load_weights
from vllm.parts.tensors import num_parameters, stage_tensors
from vllm.planning.describe import describe, read_config
from vllm.protocol.plan import LoadPlan, WorkerPlan

CONFIGS = tiny_configs()


def plan(**changes) -> WorkerPlan:
    return WorkerPlan("cpu", "float32", 1, 16, 64, **changes)


@pytest.mark.parametrize("config", [c for _, c in CONFIGS], ids=[name for name, _ in CONFIGS])
def test_loads_every_tensor(config: dict, tmp_path: Path) -> None:
    model = reference(config)
    save(model, tmp_path)
    described = describe(read_config(tmp_path))
    shards = load_weights(described.decoder, described.weights, LoadPlan(str(tmp_path)), plan())

    parameters = list(model.parameters())
    assert num_parameters(described.decoder) == sum(p.numel() for p in parameters)
    # why: any permutation of values is allowed here; that the places are right is what the parity suite shows
    ours = torch.cat([t.flatten() for t in shards.values()]).sort().values
    theirs = torch.cat([p.detach().flatten() for p in parameters]).sort().values
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("config", [c for _, c in CONFIGS], ids=[name for name, _ in CONFIGS])
def test_ranks_hold_the_whole(config: dict, tmp_path: Path) -> None:
    """Two pipeline stages hold every tensor; two tensor ranks hold every element, and agree where both hold it."""
    save(reference(config), tmp_path)
    described = describe(read_config(tmp_path))
    load = LoadPlan(str(tmp_path))
    whole = load_weights(described.decoder, described.weights, load, plan())

    stages = [load_weights(described.decoder, described.weights, load, plan(pp_size=2, pp_rank=r)) for r in (0, 1)]
    assert set(stages[0]) | set(stages[1]) == set(whole)
    for name, tensor in (*stages[0].items(), *stages[1].items()):
        assert torch.equal(tensor, whole[name])

    ranks = [load_weights(described.decoder, described.weights, load, plan(tp_size=2, tp_rank=r)) for r in (0, 1)]
    for spec in stage_tensors(described.decoder):
        full, dim, at = whole[spec.name], spec.shard_dim, 0
        if dim is None:
            assert all(torch.equal(r[spec.name], full) for r in ranks)
            continue
        local = [0, 0]
        for k, piece in enumerate(spec.pieces):
            for r in (0, 1):
                start, length = spec.ranges(2, r)[k]
                share = ranks[r][spec.name].narrow(dim, local[r], length)
                assert torch.equal(share, full.narrow(dim, at + start, length))
                local[r] += length
            at += piece.size
