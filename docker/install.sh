#!/bin/sh
# What both images do to install: the wheel beside the torch that is there, and a look at the result.
# Usage: sh install.sh FOLDER_WITH_THE_WHEEL [with-compiler]
set -eu
wheels=$1
export PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1
python=$(command -v python3 || command -v python)
before=$("$python" -c 'import torch; print(torch.__version__)')
if [ "${2:-}" = with-compiler ] && ! command -v cc >/dev/null; then
    # why: Triton builds a small launcher in C for each GPU kernel.
    apt-get update
    apt-get install -y --no-install-recommends gcc libc6-dev "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-dev"
    rm -rf /var/lib/apt/lists/*
fi
"$python" -m pip install --no-cache-dir "$wheels"/vllm-*.whl
after=$("$python" -c 'import torch; print(torch.__version__)')
[ "$before" = "$after" ] || {
    echo "pip replaced torch $before by $after" >&2
    exit 1
}
vllm --version
vllm doctor python package packages torch
