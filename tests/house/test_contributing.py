"""CONTRIBUTING's worked example is replayed: its file is written, found by the catalogue, loaded and compared."""

import re
import sys

import pytest

from tests.contract.models import reference, save
from tools.house.source import ROOT
from vllm.util.catalog import Catalogue

EXAMPLE = re.compile(r"<!-- replay: vllm/models/(\w+)\.py -->\n```python\n(.*?)```", re.DOTALL)


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The example's module, in a folder that has joined vllm.models."""
    import vllm.models
    from vllm.planning import describe

    ((name, text),) = EXAMPLE.findall((ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / f"{name}.py").write_text(text)
    monkeypatch.setattr(vllm.models.__spec__, "submodule_search_locations", [*vllm.models.__path__, str(folder)])
    monkeypatch.setattr(vllm.models, "__path__", [*vllm.models.__path__, str(folder)])
    monkeypatch.setattr(describe, "MODELS", Catalogue("vllm.models", "architecture"))
    yield describe.MODELS.load("ArceeForCausalLM")
    sys.modules.pop(f"vllm.models.{name}", None)


def test_the_example_is_not_already_there():
    ((name, _),) = EXAMPLE.findall((ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    assert not (ROOT / "vllm" / "models" / f"{name}.py").exists()


def test_adding_a_model(example, tmp_path):
    import torch

    from vllm.loading.loader import load_weights
    from vllm.parts.tensors import num_parameters
    from vllm.planning.describe import describe, read_config
    from vllm.protocol.plan import LoadPlan, WorkerPlan

    for at, config in enumerate([example.TINY, *({**example.TINY, **changes} for changes in example.VARIANTS)]):
        folder = tmp_path / str(at)
        model = reference(config)
        save(model, folder)
        described = describe(read_config(folder))
        loaded = load_weights(
            described.decoder, described.weights, LoadPlan(str(folder)), WorkerPlan("cpu", "float32", 1, 16, 64)
        )
        theirs = list(model.parameters())
        assert num_parameters(described.decoder) == sum(parameter.numel() for parameter in theirs)
        ours = torch.cat([tensor.flatten() for tensor in loaded.values()]).sort().values
        assert torch.equal(ours, torch.cat([parameter.detach().flatten() for parameter in theirs]).sort().values)
