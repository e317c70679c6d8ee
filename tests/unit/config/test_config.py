"""EngineArgs: our knobs, vLLM's other words, and the command line made from both."""

import argparse
import dataclasses
import inspect
import logging

import pytest

from vllm.config.args import EngineArgs
from vllm.config.cli import FlexibleArgumentParser, human_int
from vllm.config.compat import OTHERS
from vllm.errors import RefusedError, ValidationError

OURS = {f.name for f in dataclasses.fields(EngineArgs)}


def test_flat_and_sorted():
    args = EngineArgs("x", max_model_len=4096, max_num_seqs=None, served_model_name="a")
    assert args.model == "x" and args.max_model_len == 4096 and args.served_model_name == ("a",)
    assert args.model_args.max_model_len == 4096 and args.cache_args.gpu_memory_utilization == 0.92
    assert args.scheduler_args.max_num_seqs is None and args.parallel_args.tensor_parallel_size == 1
    assert EngineArgs(**dataclasses.asdict(args)) == args
    assert dataclasses.replace(args, max_num_seqs=4).scheduler_args.max_num_seqs == 4
    assert EngineArgs().model is None
    assert set(inspect.signature(EngineArgs).parameters) == OURS
    with pytest.raises(dataclasses.FrozenInstanceError):
        args.model = "y"


def test_none_means_the_default():
    assert EngineArgs(enable_prefix_caching=None, gpu_memory_utilization=None, seed=None).seed == 0


def test_token_is_not_printed():
    assert "hf_secret" not in repr(EngineArgs(hf_token="hf_secret"))


def test_our_words_and_theirs_do_not_meet():
    assert not OURS & set(OTHERS)
    assert len(OURS) <= 150


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"max_modl_len": 5}, TypeError, "Did you mean 'max_model_len'"),
        ({"enable_lorra": True}, TypeError, "Did you mean 'enable_lora'"),
        ({"zzzzzz": 1}, TypeError, "unknown argument 'zzzzzz'"),
        ({"enable_lora": True}, RefusedError, "LoRA adapters are not"),
        ({"rope_scaling": {"type": "linear"}}, RefusedError, "hf_overrides"),
        ({"worker_cls": "my.Worker"}, RefusedError, "other people's code"),
        ({"cpu_offload_gb": 4}, RefusedError, "cpu_offload_gb=4"),
        ({"dtype": "bf16"}, ValidationError, "Did you mean 'bfloat16'"),
        ({"gpu_memory_utilization": 1.5}, ValidationError, r"\(0, 1\], got 1.5"),
        ({"gpu_memory_utilization": float("nan")}, ValidationError, "gpu_memory_utilization"),
        ({"max_model_len": 0}, ValidationError, "max_model_len"),
        ({"max_model_len": "4096"}, ValidationError, "max_model_len"),
        ({"tensor_parallel_size": 0}, ValidationError, "tensor_parallel_size"),
        ({"enforce_eager": "yes"}, ValidationError, "True or False"),
        ({"override_generation_config": "{"}, ValidationError, "JSON"),
        ({"model": " "}, ValidationError, "built-in model"),
        ({"model": 5}, ValidationError, "model must be a string"),
        ({"scheduling_policy": "fifo"}, ValidationError, "fcfs, priority"),
    ],
)
def test_wrong_words_and_values(given, error, says):
    with pytest.raises(error, match=says):
        EngineArgs(**given)


def test_defaults_of_vllm_are_taken_without_a_word(monkeypatch):
    said = []
    monkeypatch.setattr(logging.getLogger("vllm.config.args"), "log", lambda level, text: said.append(text))
    given = {name: other.harmless[0] for name, other in OTHERS.items() if other.harmless}
    given |= {name: None for name, other in OTHERS.items() if not other.harmless}
    given |= {"enable_lora": False, "cpu_offload_gb": 0, "limit_mm_per_prompt": {}}
    EngineArgs(**given)
    assert said == []
    EngineArgs(swap_space=7, attention_backend="FLASH_ATTN")
    EngineArgs(swap_space=7, attention_backend="FLASH_ATTN")
    assert len(said) == 1
    assert "swap_space" in said[0] and "attention_backend" in said[0] and "kernels" in said[0]


def test_deterministic_from_the_environment(monkeypatch):
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", "1")
    assert EngineArgs().deterministic is True
    assert EngineArgs(deterministic=False).deterministic is False


def parse(*words):
    parser = FlexibleArgumentParser(prog="x", exit_on_error=False)
    parser.add_argument("model_tag", nargs="?")
    EngineArgs.add_cli_args(parser)
    return parser.parse_args(list(words))


def engine(*words):
    return EngineArgs.from_cli_args(parse(*words))


def test_command_line_defaults_are_the_dataclass():
    assert engine() == EngineArgs()


def test_command_line_forms():
    args = engine("--max-model-len", "4k", "--max_num_seqs=8", "-tp", "2", "--no-enable-prefix-caching", "-q=int8")
    assert (args.max_model_len, args.max_num_seqs, args.tensor_parallel_size) == (4000, 8, 2)
    assert args.enable_prefix_caching is False and args.quantization == "int8"
    assert engine("--max-model-len", "auto").max_model_len == "auto"
    assert engine("--max-model-len", "-1").max_model_len == -1
    assert engine("--served-model-name", "a", "b").served_model_name == ("a", "b")
    assert engine("--hf-overrides", '{"a": 1}').hf_overrides == {"a": 1}
    assert engine("--hf-overrides.a", "1", "--hf-overrides.b.c=x").hf_overrides == {"a": 1, "b": {"c": "x"}}
    assert engine("--override-generation-config.stop+", "1").override_generation_config == {"stop": [1]}
    assert engine("--hf-token").hf_token is True
    assert parse("model", "--swap-space", "9").swap_space == 9


def test_other_flags_are_judged_and_do_not_eat_positionals():
    with pytest.raises(RefusedError, match="LoRA"):
        engine("--enable-lora")
    assert parse("--enable-expert-parallel", "model").model_tag == "model"
    engine("-cc.mode=3")
    assert parse("-O3").optimization_level == 3 and parse("-O", "1").optimization_level == 1
    assert parse("-dp", "2", "-dpl", "1").data_parallel_size_local == 1


def test_unknown_flag_names_the_nearest(capsys):
    with pytest.raises((SystemExit, argparse.ArgumentError)):
        parse("--max-modl-len", "5")
    assert "Did you mean '--max-model-len'" in capsys.readouterr().err


def test_bad_number_names_the_flag(capsys):
    with pytest.raises((SystemExit, argparse.ArgumentError), match=r"max-num-seqs|2") as caught:
        parse("--max-num-seqs", "many")
    assert "max-num-seqs" in capsys.readouterr().err + str(caught.value)


def test_config_file(tmp_path):
    pytest.importorskip("yaml")
    path = tmp_path / "c.yaml"
    path.write_text(
        "max-model-len: 100\ntensor_parallel_size: 2\nenforce-eager: true\nenable_prefix_caching: false\n"
        "served-model-name: [a, b]\nhf_overrides: {x: 1}\n"
    )
    args = engine("model", "--max-model-len", "200", "--config", str(path))
    assert (args.max_model_len, args.tensor_parallel_size, args.enforce_eager) == (200, 2, True)
    assert (
        args.enable_prefix_caching is False and args.served_model_name == ("a", "b") and args.hf_overrides == {"x": 1}
    )
    with pytest.raises((SystemExit, argparse.ArgumentError)):
        engine("--config", str(tmp_path / "none.yaml"))


def test_help_about_a_word(capsys):
    with pytest.raises(SystemExit):
        parse("--help=kv-cache")
    shown = capsys.readouterr().out
    assert "--kv-cache-dtype" in shown and "--tensor-parallel-size" not in shown
    with pytest.raises(SystemExit):
        parse("--help=parallel")
    assert "--tensor-parallel-size" in capsys.readouterr().out


@pytest.mark.parametrize(("text", "number"), [("12", 12), ("1k", 1000), ("1K", 1024), ("25.6k", 25600), ("2G", 2**31)])
def test_human_int(text, number):
    assert human_int(text) == number


def test_every_policy_of_the_scheduler_can_be_asked_for():
    from vllm.scheduler.policy import POLICIES

    (knob,) = (f for f in dataclasses.fields(EngineArgs) if f.name == "scheduling_policy")
    assert {*POLICIES} == {*knob.metadata["knob"].choices}
    assert EngineArgs(scheduling_policy="fair").scheduling_policy == "fair"
