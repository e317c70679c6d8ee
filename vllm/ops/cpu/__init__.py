"""CPU kernels: torch's own fused operators and numba. One file per kernel; each registers itself with its op."""
