"""Facade: keeps `from vllm.benchmarks.serve import add_cli_args, main` alive."""

from vllm.util.facade import forward

__getattr__ = forward(
    __name__, {"add_cli_args": "vllm.entrypoints.bench.serve:add_arguments", "main": "vllm.entrypoints.bench.serve:run"}
)
