"""One file per architecture: NAMES, describe(), WEIGHTS, TINY.

For: turning a checkpoint's config.json into a description. Does not know: tensor parallelism, quantization,
LoRA, number formats, devices, other models. Invariant: a model never imports a model. Called by: planning, loading.
"""
