"""Facade: a path of vLLM's that has nothing behind it here; see `absent`."""

from vllm.util.facade import absent

absent(__name__, "KV connectors are not in this version; leave kv_transfer_config out.")
