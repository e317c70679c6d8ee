#!/bin/sh
# The tests that need an accelerator, with that machine's own Python and torch: nothing is installed into it and no
# network is used. Packages that it lacks may lie as wheels in .whl (make gpu-deps); they are unpacked into .gpu-site.
# First tests that share the device, WORKERS (10) at a time where pytest-xdist is there, then those that need it whole.
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
if [ -n "$MARKS" ]; then
    exec "$python" -m pytest -q -m "$MARKS" "$@"
fi
side=""
# why no:benchmark: that plugin warns of parallel tests, and warnings are errors here
"$python" -c 'import xdist' 2>/dev/null && side="-n ${WORKERS:-10} -p no:benchmark"
# shellcheck disable=SC2086
"$python" -m pytest -q $side -m "(gpu or gpu_too) and not multi_gpu and not gpu_alone" "$@"
shared=$?
"$python" -m pytest -q -m "gpu_alone and not multi_gpu" "$@"
alone=$?
# why 5: no test was asked for
[ "$shared" -eq 0 ] || [ "$shared" -eq 5 ] || exit "$shared"
[ "$alone" -eq 0 ] || [ "$alone" -eq 5 ] || exit "$alone"
