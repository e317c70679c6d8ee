"""Facade: keeps `from vllm.utils.network_utils import get_ip, get_open_port` alive."""

from vllm.util.facade import forward

__getattr__ = forward(__name__, {"get_ip": "vllm.entrypoints.odds", "get_open_port": "vllm.entrypoints.helpers"})
