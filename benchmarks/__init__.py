"""Benchmarks as code: each file is a program, `python -m benchmarks` runs them and keeps what they measured."""
