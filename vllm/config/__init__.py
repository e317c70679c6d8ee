"""What was said and what was decided, as frozen dataclasses, one section per file.

For: validated values with names. Does not know: models, devices, torch. Invariants: a section has few fields (the
model's is the long one); nothing changes it after construction. Called by: every room, with the section it needs.
vLLM's configuration objects (`from vllm.config import CompilationConfig`) are those of objects.py.
"""

from vllm.util.facade import forward_all

__getattr__ = forward_all(__name__, "vllm.config.objects")
