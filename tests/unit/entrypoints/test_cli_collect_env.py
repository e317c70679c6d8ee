"""`vllm collect-env` tells a bug report what it needs, and no secret."""

from vllm.entrypoints.cli.main import main


def test_no_secret_is_printed(monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@proxy:3128")
    monkeypatch.setenv("http_proxy", "http://secret@proxy:3128")
    monkeypatch.setenv("ALL_PROXY", "me:secret@proxy:3128")
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example/a@b")
    assert main(["collect-env"]) == 0
    told = capsys.readouterr().out
    assert "secret" not in told and "HTTPS_PROXY: http://(not shown)@proxy:3128" in told
    assert "HF_TOKEN: (set, not shown)" in told and "HF_ENDPOINT: https://hub.example/a@b" in told
