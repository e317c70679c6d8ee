"""One file per family of ops: signature, reference, CASES; kernels in sub-folders replace references.

For: the meaning of each operation, runnable on any torch device. Does not know: models, layers, requests.
Invariant: the reference is the meaning; a kernel agrees with it within the op's tolerance. Called by: layers, sampling.
"""
