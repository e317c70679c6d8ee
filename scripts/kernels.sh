#!/bin/sh
# The Triton kernels against their references in Triton's interpreter, where there is no GPU (with one: make gpu).
# The interpreter of this Triton wants an older numpy; both go into a folder of their own, seen by these tests alone.
cd "$(dirname "$0")/.." || exit 1
site=.triton-site wanted="triton==3.6.0 numpy==2.3.5"
if [ "$(cat $site/wanted 2>/dev/null)" != "$wanted" ]; then
    rm -rf $site
    # shellcheck disable=SC2086
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --target $site $wanted || exit 1
    echo "$wanted" >$site/wanted
fi
export PYTHONPATH="$PWD/$site" TRITON_INTERPRET=1
exec sh scripts/test.sh tests/kernels -k triton "$@"
