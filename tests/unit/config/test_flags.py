"""Every flag of vLLM's `serve` has a fate here: ours, ignored with the reason, or refused with it."""

import logging
from dataclasses import fields
from pathlib import Path

import pytest

from vllm.config.args import EngineArgs
from vllm.config.cli import FlexibleArgumentParser
from vllm.config.server import ServerArgs
from vllm.config.server_compat import judge_server_others
from vllm.config.server_flags import add_server_arguments
from vllm.errors import RefusedError, ValidationError

LINES = (Path(__file__).parent / "vllm_flags.txt").read_text().split("\n")
FLAGS = {line.removesuffix(" *"): line.endswith(" *") for line in LINES if line}
OURS = {f.name for section in (ServerArgs, EngineArgs) for f in fields(section)}
SAID = logging.getLogger("vllm.test")
UNBUILT = {
    # flags that many people use, and that wait for what is not built; a line goes when the thing is there
    *("enable_lora", "lora_modules", "max_lora_rank", "max_loras"),
    *("allowed_local_media_path", "mm_processor_kwargs", "language_model_only", "limit_mm_per_prompt"),
    *("mm_encoder_tp_mode", "mm_processor_cache_gb", "pooler_config", "runner", "logits_processors"),
    "structured_outputs_config",
    *("cpu_offload_gb", "kv_offloading_size", "kv_transfer_config", "enable_sleep_mode", "speculative_config"),
    *("nnodes", "node_rank", "master_addr", "profiler_config"),
}
NEEDLESS = {
    # those that only tune what is decided by itself here
    *("all2all_backend", "api_server_count", "attention_backend", "compilation_config", "disable_custom_all_reduce"),
    *("enable_expert_parallel", "enable_prompt_tokens_details", "moe_backend", "optimization_level"),
}


@pytest.fixture(scope="module")
def parser() -> FlexibleArgumentParser:
    parser = FlexibleArgumentParser(exit_on_error=False)
    add_server_arguments(parser)
    return parser


def fate(parser: FlexibleArgumentParser, flag: str, caplog: pytest.LogCaptureFixture) -> str:
    """What becomes of a flag that asks for something."""
    name = flag.replace("-", "_")
    if name in OURS or flag == "config":
        return "ours"
    action = parser._option_string_actions[f"--{flag}"]
    words = [f"--{flag}"] if action.nargs == 0 else [f"--{flag}", "surely-not-the-default"]
    arguments = parser.parse_args(words)
    caplog.clear()
    try:
        judge_server_others(arguments, SAID)
        said = caplog.text
        EngineArgs.from_cli_args(arguments)
    except RefusedError as error:
        assert len(str(error)) > 20
        return "refused"
    if said:
        assert f"--{flag} (" in said
    return "ignored"


def test_none_is_unknown(parser, caplog):
    assert len(FLAGS) == 316
    for flag in FLAGS:
        assert fate(parser, flag, caplog) in ("ours", "ignored", "refused"), flag


def test_those_that_people_use_work(parser, caplog):
    idle = {
        flag.replace("-", "_") for flag, is_used in FLAGS.items() if is_used and fate(parser, flag, caplog) != "ours"
    }
    assert idle == {name for name in UNBUILT | NEEDLESS if name not in OURS}


def test_their_defaults_ask_for_nothing(parser, caplog):
    words = ["--fingerprint-mode", "full", "--api-server-count", "1", "--tool-strict-level", "auto", "--no-grpc"]
    words += ["--no-enable-auto-tool-choice", "--h11-max-header-count", "256", "--no-enable-prompt-tokens-details"]
    judge_server_others(parser.parse_args(words), SAID)
    assert caplog.text == ""


def test_what_does_not_fit_together():
    for given in (
        {"ssl_certfile": "a"},
        {"ssl_ciphers": "x"},
        {"ssl_cert_reqs": 2, "ssl_certfile": "a", "ssl_keyfile": "b"},
        {"api_key": ("",)},
    ):
        with pytest.raises(ValidationError):
            ServerArgs(**given)


def test_keys_from_a_file(tmp_path: Path):
    file = tmp_path / "keys"
    file.write_text("one\n\n two \n")
    assert ServerArgs(api_key=("zero",), api_key_file=str(file)).keys == ("zero", "one", "two")
    file.write_text("\n")
    with pytest.raises(ValidationError, match="holds no key"):
        _ = ServerArgs(api_key_file=str(file)).keys
    with pytest.raises(ValidationError, match="No such file"):
        _ = ServerArgs(api_key_file=str(tmp_path / "none")).keys
