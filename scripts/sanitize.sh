#!/bin/sh
# NVIDIA's compute-sanitizer over small cases of every kernel: memory that is not ours (memcheck), reads of shared memory
# that race with writes (racecheck). Torch then asks the driver for each tensor, so that neighbours cannot hide an error.
# Usage: sh scripts/sanitize.sh [pytest arguments]     TOOLS="memcheck racecheck"   CASES="a pytest -k expression"
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python3}
command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is part of the CUDA toolkit; none is here" >&2; exit 1; }
export PYTHONPATH="$PWD:$PWD/.gpu-site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 PYTORCH_NO_CUDA_MEMORY_CACHING=1
cases=${CASES:-"bfloat16 and (few or way or fold or norm or rope or heads or activ or gather or pick or draw or choos or experts or fp8 or decode or attention)"}
status=0
for tool in ${TOOLS:-memcheck racecheck}; do
    echo "== $tool"
    compute-sanitizer --tool "$tool" --target-processes application-only --error-exitcode 9 --print-limit 20 \
        "$python" -m pytest -q -x -p no:xdist -p no:cacheprovider tests/kernels -m gpu_too -k "$cases" "$@" || status=1
done
exit $status
