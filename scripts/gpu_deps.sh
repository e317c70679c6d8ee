#!/bin/sh
# Downloads, as wheels into .whl, what a GPU machine without a network may lack; `make gpu` unpacks them there.
# Usage: make gpu-deps     GPU_PYTHON=3.12 is the Python of that machine.
cd "$(dirname "$0")/.." || exit 1
sh scripts/setup.sh || exit 1
exec .venv/bin/python scripts/gpu_deps.py "${GPU_PYTHON:-3.12}"
