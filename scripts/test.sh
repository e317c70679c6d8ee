#!/bin/sh
# The CPU test suites. Two processes of one thread each (WORKERS=1 for one): shapes are small, and two cores are common.
cd "$(dirname "$0")/.." || exit 1
# why: many tests start processes; without bytecode on the disk each of them compiles the package anew
unset PYTHONDONTWRITEBYTECODE
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
exec .venv/bin/python -m pytest -q -n "${WORKERS:-2}" --dist loadfile --no-loadscope-reorder "$@"
