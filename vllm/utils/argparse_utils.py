"""Facade: keeps `from vllm.utils.argparse_utils import FlexibleArgumentParser` alive."""

from vllm.util.facade import forward

__getattr__ = forward(__name__, {"FlexibleArgumentParser": "vllm.config.cli"})
