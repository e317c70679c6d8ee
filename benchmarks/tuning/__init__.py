"""Programs that choose tiles of kernels on a GPU; their results are checked in, nothing is tried while serving."""
