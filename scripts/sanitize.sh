#!/bin/sh
# NVIDIA's compute-sanitizer over small cases of every kernel: memory that is not ours (memcheck). Torch then asks the
# driver for each tensor, so that neighbours cannot hide an error. The files of tests/kernels run side by side, each
# under a sanitizer of its own; logs lie in LOGS (a temporary folder). Two minutes on 16 cores.
# Usage: sh scripts/sanitize.sh     TOOLS="memcheck racecheck"   CASES="a pytest -k expression"
# why racecheck only if asked: it takes several times as long, and in kernels of several warp groups it takes the byte by
# which Triton tells a group what to do for a race: it stands between two `barrier.sync` of all warps (PTX, read by hand)
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-python3}
PATH="$PATH:/usr/local/cuda/bin"
command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is part of the CUDA toolkit; none is here" >&2; exit 1; }
export PYTHONPATH="$PWD:$PWD/.gpu-site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 PYTORCH_NO_CUDA_MEMORY_CACHING=1
logs=${LOGS:-$(mktemp -d)}
mkdir -p "$logs"

check() { # tool, file
    log="$logs/$1.$(basename "$2" .py).log"
    compute-sanitizer --tool "$1" --target-processes application-only --error-exitcode 9 --print-limit 20 \
        "$python" -m pytest -q -x -p no:xdist -p no:cacheprovider "$2" -m gpu_too -k "${CASES:-bfloat16 or pick}" >"$log" 2>&1
    status=$?
    # why: who names cases means some files; otherwise a file of which nothing runs is a mistake
    [ $status -eq 5 ] && [ -n "$CASES" ] && status=0
    echo "$status $1 $2: $(grep -E 'passed|failed|deselected' "$log" | tail -1) $(grep 'SUMMARY' "$log" | tail -1)"
    return $status
}

worst=0
for tool in ${TOOLS:-memcheck}; do
    running=""
    for file in tests/kernels/test_triton_*.py; do
        check "$tool" "$file" &
        running="$running $!"
    done
    for one in $running; do
        wait "$one" || worst=1
    done
done
echo "logs: $logs"
exit $worst
