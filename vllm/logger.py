"""Facade: keeps `from vllm.logger import init_logger` alive."""

from vllm.util.facade import forward

__getattr__ = forward(__name__, {"init_logger": "vllm.util.log:get_logger"})
