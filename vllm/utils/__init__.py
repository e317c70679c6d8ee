"""Facade: keeps `from vllm.utils import FlexibleArgumentParser, get_ip, get_open_port, random_uuid` alive."""

from vllm.util.facade import forward

_HOMES = {
    "FlexibleArgumentParser": "vllm.config.cli",
    "get_ip": "vllm.entrypoints.odds",
    "get_open_port": "vllm.entrypoints.helpers",
    "random_uuid": "vllm.entrypoints.helpers",
}
__getattr__ = forward(__name__, _HOMES)
