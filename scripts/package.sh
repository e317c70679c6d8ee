#!/bin/sh
# Builds sdist and wheel and proves them: pure Python, installable without a download beside an existing torch, running.
# Usage: sh scripts/package.sh [nightly]     nightly: a version from git, such as 1.0.1.dev12+gabc1234
set -e
cd "$(dirname "$0")/.."
root=$PWD
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
.venv/bin/python -m pip install -qq --disable-pip-version-check -r requirements-build.txt
rm -rf dist
tree=$root
if [ "${1:-}" = nightly ]; then
    version=$(.venv/bin/python scripts/version.py nightly)
    mkdir "$room/tree" && git archive HEAD | tar -x -C "$room/tree"
    .venv/bin/python scripts/version.py stamp "$room/tree" "$version"
    tree=$room/tree
fi
(cd "$tree" && "$root/.venv/bin/python" -m hatchling build -d "$root/dist" >/dev/null)
.venv/bin/python tools/house/wheel.py dist/*.whl

# A clean environment holds everything but this package: what is linked there counts as installed for pip.
here=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
for made in "$root"/dist/*.whl "$root"/dist/*.tar.gz; do
    env=$room/env-${made##*.}
    .venv/bin/python -m venv --without-pip "$env"
    there=$("$env/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    for item in "$here"/*; do
        case ${item##*/} in vllm* | _vllm* | *.pth | __pycache__) ;; *) ln -s "$item" "$there/" ;; esac
    done
    "$env/bin/python" -m pip install -qq --disable-pip-version-check --no-index --no-build-isolation "$made"
    (
        cd "$room"
        "$env/bin/python" -c 'import vllm; assert vllm.__file__.startswith("'"$room"'"), vllm.__file__; print("installed", vllm.__version__)'
        "$env/bin/vllm" --help >/dev/null
        "$env/bin/python" -m vllm.entrypoints.demo >demo.txt 2>log.txt || { cat log.txt; exit 1; }
        tail -n 2 demo.txt
    )
done
# The extras of users and of tests; what is not linked comes from the index.
"$room/env-whl/bin/python" -m pip install -qq --disable-pip-version-check "$(echo "$root"/dist/*.whl)[otel,test]"
(cd "$room" && env-whl/bin/python -c 'import openai, opentelemetry.sdk, opentelemetry.exporter.otlp.proto.http, vllm; print("extras of", vllm.__file__)')
echo "Wheel and sdist install without a download and generate: $(cd "$root" && echo dist/*)"
