"""One file per kind of device: what it has, what it can do, how it is synchronised.

For: the facts of a device and the few calls that differ. Does not know: models, layers, requests.
Invariant: at most 15 methods; a device without an own kernel runs the references. Called by: device rooms.
"""

from vllm.util.facade import forward

__getattr__ = forward(__name__, {"current_platform": "vllm.entrypoints.platform_view"})
