#!/bin/sh
# The CPU test suites: unit, property, contract, house. One thread a test, because two cores and small shapes.
cd "$(dirname "$0")/.." || exit 1
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
exec .venv/bin/python -m pytest -q "$@"
