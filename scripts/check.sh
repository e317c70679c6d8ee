#!/bin/sh
# What a change must pass before it is proposed, short of the test suites: style, types, the house.
cd "$(dirname "$0")/.." || exit 1
.venv/bin/python -m ruff check . && .venv/bin/python -m ruff format --check . &&
    .venv/bin/python -m mypy && .venv/bin/python -m tools.house && exec sh scripts/test.sh tests/house
