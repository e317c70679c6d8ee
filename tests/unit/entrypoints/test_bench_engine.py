"""`vllm bench engine`: rows, ledger, picture and JSON on the built-in model; floors and ratios by given figures."""

import json
import sys
import xml.etree.ElementTree as ET

import pytest

from vllm.entrypoints.bench.engine import shown
from vllm.entrypoints.bench.picture import LEFT, ROW, TOP, WIDE, draw
from vllm.entrypoints.bench.recorded import VLLM, recorded, yardstick
from vllm.entrypoints.cli.main import main

ASKED = ["bench", "engine", "--max-model-len", "256", "--scale", "0.02"]


def test_rows_ledger_and_picture(tmp_path, capsys):
    ledger, picture, out = (tmp_path / name for name in ("ledger.jsonl", "rows.svg", "rows.json"))
    ledger.write_text('{"benchmark": "older"}\n')
    files = ["--ledger", str(ledger), "--picture", str(picture), "--output-json", str(out)]
    assert main([*ASKED, "b1", "prefill", "small", *files]) == 0
    older, *kept = (json.loads(line) for line in ledger.read_text().splitlines())
    assert older == {"benchmark": "older"}
    assert [row["case"] for row in kept] == ["b1", "prefill", "small"]
    for row in kept:
        assert row["benchmark"] == "engine" and row["commit"] and row["machine"] and row["model"] == "builtin"
        assert row["value"] > 0 and row["host_ms"] > 0 and row["submit_ms"] > 0
        assert row["floor"] is None and row["vllm"] is None, "nothing is known of this device"
    assert kept[0]["step_ms"] == kept[0]["value"] and kept[0]["unit"] == "ms"
    assert (kept[1]["inp"], kept[1]["out"]) == (1 * 41, 1)
    assert [row["case"] for row in json.loads(out.read_text())["rows"]] == ["b1", "prefill", "small"]
    words = [e.text for e in ET.parse(picture).iter("{http://www.w3.org/2000/svg}text")]
    assert {"b1", "prefill", "small"} <= set(words)
    assert "host/step" in capsys.readouterr().out


def test_floor_and_ratio_on_a_known_device(monkeypatch):
    from vllm.entrypoints.bench.engine import Judge

    judge = object.__new__(Judge)
    judge._speed, judge._network, judge._scale = None, None, 1
    judge._name, judge.device = "Llama-3.1-8B", "NVIDIA H200"
    monkeypatch.setattr(Judge, "_floor", lambda self, case, figures: 3.43 if case == "b1" else 51_000.0)
    row = judge.judged({"case": "b1", "step_ms": 3.847, "host_ms": 0.1})
    assert (row["vllm"], row["to_vllm"], row["share_of_floor"]) == (4.914, 1.2774, 0.8916)
    assert "89%" in shown(row) and "1.28" in shown(row)
    row = judge.judged({"case": "prefill", "tot_tok_s": 43_010.0, "host_ms": 0.1})
    assert (row["to_vllm"], row["share_of_floor"]) == (1.0104, 0.8433)
    judge._scale = 0.5
    assert judge.judged({"case": "b1", "step_ms": 3.8, "host_ms": 0.1})["vllm"] is None, "other sizes are not compared"


def test_floor_of_a_plan_for_an_h200(tmp_path):
    from vllm.assembly import make_plan
    from vllm.config.args import EngineArgs
    from vllm.entrypoints.bench.engine import Judge
    from vllm.planning.floor import reachable
    from vllm.planning.known import facts_of

    sizes = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
    more = {"num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5}
    config = {"architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "torch_dtype": "bfloat16", **sizes, **more}
    (tmp_path / "config.json").write_text(json.dumps(config))
    device = facts_of("H200", 1)
    _, described, plan = make_plan(EngineArgs(str(tmp_path)), weights=False, device=device)
    judge = object.__new__(Judge)
    judge._plan, judge._network, judge._speed = plan, described.decoder, reachable(device, "none")
    assert judge._floor("b32", {"ctx": 1024, "out": 256}) == pytest.approx(4.5, rel=0.02)
    assert judge._floor("prefill", {"inp": 64 * 2048, "out": 64}) == pytest.approx(54_600, rel=0.01)
    assert judge._floor("mixed", {}) is None


def test_recorded_figures():
    assert yardstick("LlamaForCausalLM", 8_030_261_248, "fp8") == "Llama-3.1-8B fp8"
    assert yardstick("LlamaForCausalLM", 8_030_261_249, "none") is None
    assert recorded("Llama-3.1-8B", "NVIDIA H200", "b32") == 6.404
    assert recorded("Llama-3.1-8B", "NVIDIA A100", "b32") is None and recorded(None, "NVIDIA H200", "b32") is None
    assert all(value > 0 for cases in VLLM.values() for value in cases.values())


ROWS = [{"case": "<b1>", "value": 2.0, "unit": "ms", "vllm": 4.0, "floor": 1.0}]


def test_bars_are_in_proportion(tmp_path):
    draw(str(tmp_path / "rows.svg"), "a & b", ROWS)
    root = ET.parse(tmp_path / "rows.svg").getroot()
    ours, theirs = [float(e.get("width")) for e in root if e.get("height") == "14.0"]
    assert theirs == pytest.approx(2 * ours, rel=0.01)
    assert "<b1>" in [e.text for e in root]


def test_a_png_has_the_same_bars(tmp_path):
    from PIL import Image

    draw(str(tmp_path / "rows.png"), "a & b", ROWS)
    picture = Image.open(tmp_path / "rows.png")
    assert picture.size == (2 * WIDE, 2 * (TOP + ROW + 12))
    ours, theirs = [
        sum(picture.getpixel((x, 2 * (TOP + y))) == colour for x in range(2 * LEFT, 2 * WIDE))
        for y, colour in ((10, (0x25, 0x63, 0xEB)), (26, (0x9C, 0xA3, 0xAF)))
    ]
    assert theirs == pytest.approx(2 * ours, rel=0.02) and ours > 100
    title = picture.crop((0, 0, 2 * WIDE, 60)).convert("L")
    assert min(title.get_flattened_data() if hasattr(title, "get_flattened_data") else title.getdata()) < 100


def test_a_png_without_pillow_is_refused_before_anything_is_measured(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert main([*ASKED[:2], "--picture", "rows.png"]) == 2
    assert "pip install pillow" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "named"), [(["b3"], "case 'b3'"), (["--scale", "2"], "scale"), (["--picture", "rows.gif"], ".png")]
)
def test_bad_flags_are_named(capsys, words, named):
    assert main([*ASKED[:2], *words]) == 2
    assert named in capsys.readouterr().err
