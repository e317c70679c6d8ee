"""CPU kernels: traced in Python, compiled by LLVM when first used. One file per kernel.

Each registers itself with its op; `lang.py` is the language, `jit.py` the compiler and the threads.
"""
