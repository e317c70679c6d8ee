#!/bin/sh
# Builds the wheel and proves it: pure Python, installable without a download beside an existing torch, and it runs.
set -e
cd "$(dirname "$0")/.."
root=$PWD
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
.venv/bin/python -m pip install -qq --disable-pip-version-check -r requirements-build.txt
rm -rf dist
.venv/bin/python -m pip wheel -qq --disable-pip-version-check --no-deps --no-build-isolation -w dist .
.venv/bin/python tools/house/wheel.py dist/*.whl

# A clean environment that holds everything but this package: what is linked here counts as installed for pip.
.venv/bin/python -m venv --without-pip "$room/env"
here=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
there=$("$room/env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
for item in "$here"/*; do
    case ${item##*/} in vllm* | _vllm* | *.pth | __pycache__) ;; *) ln -s "$item" "$there/" ;; esac
done
"$room/env/bin/python" -m pip install -qq --disable-pip-version-check --no-index "$root"/dist/*.whl
cd "$room"
env/bin/python -c 'import vllm; assert vllm.__file__.startswith("'"$room"'"), vllm.__file__; print("installed", vllm.__version__)'
env/bin/vllm --help >/dev/null
env/bin/python -m vllm.entrypoints.demo >demo.txt
tail -n 4 demo.txt
echo "The wheel installs without a download and generates: $(cd "$root" && ls dist)"
