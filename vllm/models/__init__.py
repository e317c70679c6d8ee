"""One file per architecture: NAMES, describe(), WEIGHTS, TINY (and VARIANTS: changes of TINY to test as well).

For: turning a checkpoint's config.json into a description. Does not know: tensor parallelism, quantization,
LoRA, number formats, devices, other models. Invariant: a model never imports a model. Called by: planning, loading.
"""
