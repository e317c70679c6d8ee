"""Triton kernels. One file per kernel; each registers itself with its op."""
