"""Weights from files to shards: every way of being wrong is one sentence that names file and tensor."""

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vllm.errors import ModelLoadError, ModelNotFoundError
from vllm.loading.loader import load_weights
from vllm.models import gpt2, llama, mixtral, opt
from vllm.parts.decoder import Decoder
from vllm.parts.hf import HFConfig
from vllm.parts.tensors import stage_tensors
from vllm.protocol.plan import LoadPlan, WorkerPlan

CONFIG = {**llama.TINY, "hidden_act": "silu", "rms_norm_eps": 1e-5, "attention_bias": False, "mlp_bias": False}
DECODER = llama.describe(HFConfig(CONFIG))
State = dict[str, torch.Tensor]


def llama_state(layers: int = 2) -> State:
    """A checkpoint of TINY under the hub's names."""
    shapes = {"model.embed_tokens": (128, 32), "lm_head": (128, 32), "model.norm": (32,)}
    for i in range(layers):
        at = f"model.layers.{i}"
        shapes |= {f"{at}.self_attn.{x}_proj": (n, 32) for x, n in (("q", 64), ("k", 32), ("v", 32))}
        shapes |= {f"{at}.self_attn.o_proj": (32, 64), f"{at}.mlp.down_proj": (32, 48)}
        shapes |= {f"{at}.mlp.{x}_proj": (48, 32) for x in ("gate", "up")}
        shapes |= {f"{at}.{x}_layernorm": (32,) for x in ("input", "post_attention")}
    g = torch.Generator().manual_seed(0)
    return {f"{name}.weight": torch.randn(shape, generator=g) for name, shape in shapes.items()}


def load(folder: Path, decoder: Decoder = DECODER, weights=llama.WEIGHTS, load_format="auto", **plan) -> State:
    worker = WorkerPlan("cpu", plan.pop("dtype", "float32"), 1, 16, 64, **plan)
    return load_weights(decoder, weights, LoadPlan(str(folder), load_format), worker)


def check(shards: State, state: State) -> None:
    assert torch.equal(shards["embed.weight"], state["model.embed_tokens.weight"])
    q, k, v = (state[f"model.layers.1.self_attn.{x}_proj.weight"] for x in "qkv")
    assert torch.equal(shards["layers.1.mixer.qkv.weight"], torch.cat((q, k, v)))
    gate, up = (state[f"model.layers.0.mlp.{x}_proj.weight"] for x in ("gate", "up"))
    assert torch.equal(shards["layers.0.ffn.gate_up.weight"], torch.cat((gate, up)))


def sharded(folder: Path, state: State, ending: str, save: Callable[[State, Path], None]) -> None:
    """Two files and an index, as large models come."""
    stem = "model" if ending == "safetensors" else "pytorch_model"
    names = sorted(state)
    halves = {f"{stem}-0000{n + 1}-of-00002.{ending}": names[n::2] for n in (0, 1)}
    for file, mine in halves.items():
        save({name: state[name] for name in mine}, folder / file)
    table = {name: file for file, mine in halves.items() for name in mine}
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))


def test_one_safetensors_file(tmp_path: Path) -> None:
    state = llama_state()
    save_file(state, tmp_path / "model.safetensors")
    check(load(tmp_path), state)


def test_sharded_safetensors(tmp_path: Path) -> None:
    state = llama_state()
    sharded(tmp_path, state, "safetensors", save_file)
    check(load(tmp_path), state)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled(tmp_path: Path, zipped: bool) -> None:
    state = llama_state()
    torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    check(load(tmp_path), state)


def test_sharded_pickled(tmp_path: Path) -> None:
    state = llama_state()
    sharded(tmp_path, state, "bin", torch.save)
    check(load(tmp_path), state)


def test_safetensors_come_before_pickles_and_copies(tmp_path: Path) -> None:
    state = llama_state()
    save_file(state, tmp_path / "model.safetensors")
    save_file({"other.names": torch.zeros(1)}, tmp_path / "consolidated.safetensors")
    torch.save({"x": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    check(load(tmp_path), state)
    with pytest.raises(ModelLoadError, match=r"'x' in pytorch_model\.bin"):
        load(tmp_path, load_format="pt")


def test_names_may_lack_the_prefix(tmp_path: Path) -> None:
    state = llama_state()
    save_file({name.removeprefix("model."): t for name, t in state.items()}, tmp_path / "model.safetensors")
    check(load(tmp_path), state)


@pytest.mark.parametrize("prefix", ["model.decoder.", "decoder.", ""])
def test_opt_prefixes(tmp_path: Path, prefix: str) -> None:
    decoder = opt.describe(HFConfig({**opt.TINY, "activation_function": "relu"}))
    names = {"embed.weight": "embed_tokens.weight", "embed.positions": "embed_positions.weight"}
    state = {}
    for spec in stage_tensors(decoder):
        at, tensor = spec.name.split("."), torch.randn(spec.shape)
        last = at[-1]
        if spec.name in names:
            state[prefix + names[spec.name]] = tensor
        elif at[0] == "norm":
            state[f"{prefix}final_layer_norm.{last}"] = tensor
        elif at[3] == "qkv":
            for x, part in zip("qkv", tensor.chunk(3), strict=True):
                state[f"{prefix}layers.{at[1]}.self_attn.{x}_proj.{last}"] = part.clone()
        else:
            theirs = {"o": "self_attn.out_proj", "up": "fc1", "down": "fc2"}.get(at[3], at[2])
            theirs = {"pre_mixer": "self_attn_layer_norm", "pre_ffn": "final_layer_norm"}.get(theirs, theirs)
            state[f"{prefix}layers.{at[1]}.{theirs}.{last}"] = tensor
    state["lm_head.weight"] = state[f"{prefix}embed_tokens.weight"].clone()  # tied: may be there once more
    torch.save({name: t.half() for name, t in state.items()}, tmp_path / "pytorch_model.bin")
    shards = load(tmp_path, decoder, opt.WEIGHTS)
    expected = state[f"{prefix}layers.1.fc1.bias"].half().float()
    assert torch.equal(shards["layers.1.ffn.up.bias"], expected)
    assert "head.weight" not in shards


def test_gpt2_masks_are_ignored_and_maps_turned(tmp_path: Path) -> None:
    config = {**gpt2.TINY, "activation_function": "gelu_new"}
    decoder = gpt2.describe(HFConfig(config))
    state: State = {"wte.weight": torch.randn(128, 32), "wpe.weight": torch.randn(256, 32)}
    state |= {"ln_f.weight": torch.randn(32), "ln_f.bias": torch.randn(32)}
    shapes = {"attn.c_attn": (32, 96), "attn.c_proj": (32, 32), "mlp.c_fc": (32, 128), "mlp.c_proj": (128, 32)}
    for i in range(2):
        for name, (rows, cols) in shapes.items():
            state[f"h.{i}.{name}.weight"] = torch.randn(rows, cols)
            state[f"h.{i}.{name}.bias"] = torch.randn(cols)
        for name in ("ln_1", "ln_2"):
            state |= {f"h.{i}.{name}.weight": torch.randn(32), f"h.{i}.{name}.bias": torch.randn(32)}
        state[f"h.{i}.attn.bias"] = torch.ones(1, 1, 256, 256)
    save_file(state, tmp_path / "model.safetensors")
    shards = load(tmp_path, decoder, gpt2.WEIGHTS)
    assert torch.equal(shards["layers.1.mixer.qkv.weight"], state["h.1.attn.c_attn.weight"].t())


@pytest.mark.parametrize("fused", [True, False])
def test_experts_stacked_or_one_by_one(tmp_path: Path, fused: bool) -> None:
    config = {**mixtral.TINY, "hidden_act": "silu", "rms_norm_eps": 1e-5, "num_hidden_layers": 1}
    decoder = mixtral.describe(HFConfig(config))
    state = {name: t for name, t in llama_state(1).items() if ".mlp." not in name}
    up, down = torch.randn(4, 96, 32), torch.randn(4, 32, 48)
    if fused:
        at = "model.layers.0.mlp"
        state |= {f"{at}.gate.weight": torch.randn(4, 32), f"{at}.experts.gate_up_proj": up}
        state[f"{at}.experts.down_proj"] = down
    else:
        at = "model.layers.0.block_sparse_moe"
        state[f"{at}.gate.weight"] = torch.randn(4, 32)
        for e in range(4):
            state |= {
                f"{at}.experts.{e}.w1.weight": up[e, :48].clone(),
                f"{at}.experts.{e}.w3.weight": up[e, 48:].clone(),
            }
            state[f"{at}.experts.{e}.w2.weight"] = down[e].clone()
    save_file(state, tmp_path / "model.safetensors")
    shards = load(tmp_path, decoder, mixtral.WEIGHTS)
    assert torch.equal(shards["layers.0.ffn.experts.gate_up"], up)
    assert torch.equal(shards["layers.0.ffn.experts.down"], down)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_converted(tmp_path: Path, stored: torch.dtype) -> None:
    state = {name: t.to(stored) for name, t in llama_state().items()}
    save_file(state, tmp_path / "model.safetensors")
    shards = load(tmp_path, dtype="bfloat16")
    assert all(t.dtype == torch.bfloat16 and t.is_contiguous() for t in shards.values())
    assert torch.equal(shards["embed.weight"], state["model.embed_tokens.weight"].bfloat16())


def without(name: str) -> Callable[[State], None]:
    def drop(state: State) -> None:
        del state[name]

    return drop


WRONG: dict[str, tuple[Callable[[State], object], str]] = {
    "missing": (without("model.layers.1.mlp.down_proj.weight"), r"lacks model\.layers\.1\.mlp\.down_proj\.weight"),
    "missing piece": (without("model.layers.0.self_attn.k_proj.weight"), r"lacks .*\{q\|k\|v\}.*2 of 3 parts"),
    "unknown": (lambda s: s.update(surprise=torch.zeros(2)), r"no place for: 'surprise' in model\.safetensors"),
    "bias": (
        lambda s: s.update({"model.layers.0.self_attn.q_proj.bias": torch.zeros(64)}),
        r"no place for: 'model\.layers\.0\.self_attn\.q_proj\.bias'",
    ),
    "extra layer": (
        lambda s: s.update({"model.layers.2.input_layernorm.weight": torch.zeros(32)}),
        r"no place for: 'model\.layers\.2",
    ),
    "shape": (
        lambda s: s.update({"model.norm.weight": torch.zeros(33)}),
        r"'model\.norm\.weight' in model\.safetensors has shape \[33\]; config\.json asks for \[32\]",
    ),
    "piece's shape": (
        lambda s: s.update({"model.layers.0.self_attn.v_proj.weight": torch.zeros(64, 32)}),
        r"v_proj\.weight' in model\.safetensors has shape \[64, 32\]; config\.json asks for \[32, 32\]",
    ),
    "twice": (
        lambda s: s.update({"norm.weight": torch.zeros(32)}),
        r"'model\.norm\.weight' in .* and 'norm\.weight' in .* are the same parameter",
    ),
}


@pytest.mark.parametrize(("change", "text"), WRONG.values(), ids=list(WRONG))
def test_checkpoint_that_does_not_fit(tmp_path: Path, change: Callable[[State], object], text: str) -> None:
    state = dict(sorted(llama_state().items()))
    change(state)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ModelLoadError, match=text):
        load(tmp_path)


def test_rotary_buffers_are_no_surprise(tmp_path: Path) -> None:
    state = llama_state()
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(8)
    save_file(state, tmp_path / "model.safetensors")
    check(load(tmp_path), state)


@pytest.mark.parametrize("keep", [0, 4, 100, 3000, -1])
def test_cut_off_safetensors(tmp_path: Path, keep: int) -> None:
    save_file(llama_state(), tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[:keep])
    with pytest.raises(ModelLoadError, match=r"model\.safetensors.*(cut off|damaged)"):
        load(tmp_path)


def header(entry: object) -> bytes:
    raw = json.dumps(entry).encode() if not isinstance(entry, bytes) else entry
    return struct.pack("<Q", len(raw)) + raw + bytes(64)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (header(b"not json"), "not readable JSON"),
        (header([1]), "not readable JSON"),
        (header({"t": {"dtype": "F32"}}), "describes tensor 't' wrongly"),
        (header({"t": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}), "describes tensor 't' wrongly"),
        (header({"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}), "does not fill"),
        (header({"t": {"dtype": "F4", "shape": [2], "data_offsets": [0, 4]}}), "dtype F4, which is not supported"),
        (header({"t": {"dtype": "F32", "shape": [32], "data_offsets": [0, 128]}}), "cut off"),
        (struct.pack("<Q", 1 << 62) + bytes(64), "not a safetensors file"),
    ],
)
def test_damaged_header(tmp_path: Path, data: bytes, text: str) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelLoadError, match=text):
        load(tmp_path)


class Evil:
    """Runs code when it is unpickled by anyone careless."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('the pickle ran')",)


def test_pickle_that_wants_to_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"x": Evil()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match=r"pytorch_model\.bin is damaged, or holds more than tensors"):
        load(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ModelLoadError, match=r"pytorch_model\.bin"):
        load(tmp_path)


@pytest.mark.parametrize("keep", [0, 10, 5000, -100])
@pytest.mark.parametrize("zipped", [True, False])
def test_cut_off_pickle(tmp_path: Path, keep: int, zipped: bool) -> None:
    torch.save(llama_state(), tmp_path / "whole", _use_new_zipfile_serialization=zipped)
    (tmp_path / "pytorch_model.bin").write_bytes((tmp_path / "whole").read_bytes()[:keep])
    with pytest.raises(ModelLoadError, match=r"pytorch_model\.bin"):
        load(tmp_path)


def test_pickle_that_is_no_dictionary(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match="holds a list"):
        load(tmp_path)


def test_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"holds no weights.*load_format='dummy'"):
        load(tmp_path)
    with pytest.raises(ModelNotFoundError, match="is not a folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(ModelLoadError, match="load_format 'tar'"):
        load(tmp_path, load_format="tar")


def test_unfinished_download(tmp_path: Path) -> None:
    sharded(tmp_path, llama_state(), "safetensors", save_file)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match=r"lacks 1 of the 2 files.*model-00002-of-00002"):
        load(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"x": "../../etc/passwd"}}')
    with pytest.raises(ModelLoadError, match="not a file of its own folder"):
        load(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(ModelLoadError, match="not a readable index"):
        load(tmp_path)


def test_dummy_depends_on_seed_and_name_alone(tmp_path: Path) -> None:
    def dummy(seed: int = 0, **plan: object) -> State:
        worker = WorkerPlan("cpu", "bfloat16", 1, 16, 64, **plan)
        return load_weights(DECODER, llama.WEIGHTS, LoadPlan(str(tmp_path), "dummy", seed), worker)

    one, same, other = dummy(), dummy(), dummy(seed=1)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["embed.weight"], other["embed.weight"])
    assert not torch.equal(one["layers.0.mixer.qkv.weight"], one["layers.1.mixer.qkv.weight"])
    assert all((t == 1).all() for name, t in one.items() if "norm" in name or ".pre_" in name)
    wide = one["embed.weight"].float()
    assert 0 < wide.abs().max() <= 1.001e-3 and wide.std() > 5e-4 and (wide == 0).float().mean() < 0.01
    halves = [dummy(tp_size=2, tp_rank=r)["layers.0.mixer.o.weight"] for r in (0, 1)]
    assert torch.equal(torch.cat(halves, 1), one["layers.0.mixer.o.weight"])
