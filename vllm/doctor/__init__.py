"""What may be wrong with a machine, and the command that mends each of it.

For: `vllm doctor`. Does not know: torch (it asks a child process), the engine, models. Invariants: needs the standard
library alone, so it works where an installation is broken; writes nothing that stays; every sentence is data, in
English and Chinese, beside its remedy; no secret is printed. Called by: entrypoints/cli/doctor.py.
"""
