"""The maker of the built-in model: text generator, tokenizer, trainer, evaluation.

Nothing in the wheel imports this; it only writes the files of `vllm/builtin/`.
"""
