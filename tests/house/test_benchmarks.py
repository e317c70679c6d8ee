"""`make bench` runs every program of its folder and keeps exactly their JSON lines."""

import json

import benchmarks.__main__ as bench


def test_figures_are_kept(tmp_path, monkeypatch, capfd):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").write_text("")
    (tmp_path / "benchmarks" / "tiny.py").write_text('print("for people")\nprint("3")\nprint(\'{"step_ms": 0.5}\')\n')
    (tmp_path / "benchmarks" / "broken.py").write_text("raise SystemExit(3)\n")
    monkeypatch.setattr(bench, "FOLDER", tmp_path / "benchmarks")
    monkeypatch.setattr(bench, "LEDGER", tmp_path / "ledger.jsonl")
    assert bench.main([]) == 1  # broken
    rows = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert [(row["benchmark"], row["step_ms"]) for row in rows] == [("tiny", 0.5)]
    assert {"at", "commit", "machine", "torch", "python"} <= set(rows[0])
    assert "for people" in capfd.readouterr().out


def test_unknown_names_are_told(capsys):
    assert bench.main(["nonsense"]) == 1
    assert "no benchmark nonsense" in capsys.readouterr().err
