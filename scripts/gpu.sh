#!/bin/sh
# The tests that need an accelerator, with that machine's own Python and torch: nothing is installed into it and no
# network is used. Packages that it lacks may lie as wheels in .whl (make gpu-deps); they are unpacked into .gpu-site.
# Usage: make gpu, or sh scripts/gpu.sh [pytest arguments]     PYTHON=... names another interpreter.
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python3}
if ls .whl/*.whl >/dev/null 2>&1; then
    "$python" -m pip install -q --no-index --no-deps --no-compile --upgrade --target .gpu-site .whl/*.whl || exit 1
fi
export PYTHONPATH="$PWD:$PWD/.gpu-site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
    echo "make gpu needs a machine with an accelerator and a torch that sees it; $python has none" >&2
    exit 1
}
exec "$python" -m pytest -q -m "${MARKS:-(gpu or gpu_too) and not multi_gpu}" "$@"
