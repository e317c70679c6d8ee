#!/bin/sh
# Makes .venv with the newest Python 3.11-3.14 found and installs this checkout into it; does nothing the second time.
# Usage: sh scripts/setup.sh [test|e2e|docs|dev]     PYTHON=/path/to/python overrides the search.
cd "$(dirname "$0")/.." || exit 1

usable='import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))'
has_pip='import importlib.util as u; u.find_spec("pip") or __import__("runpy").run_module("ensurepip")'
in_range='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))'

if .venv/bin/python -c "$in_range" 2>/dev/null && .venv/bin/python -c "$has_pip" 2>/dev/null; then
    exec .venv/bin/python scripts/setup.py "$@"
fi
without_venv=
for name in ${PYTHON:-python3.14 python3.13 python3.12 python3.11 python3 python}; do
    if "$name" -c "$usable" 2>/dev/null; then
        echo "Making .venv with $("$name" --version)"
        rm -rf .venv && "$name" -m venv .venv && exec .venv/bin/python scripts/setup.py "$@"
        exit 1
    elif "$name" -c "$in_range" 2>/dev/null; then
        without_venv=${without_venv:-$name}
    fi
done
if [ -n "$without_venv" ]; then
    version=$("$without_venv" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "$without_venv has no venv or ensurepip; on Debian and Ubuntu: apt-get install python$version-venv" >&2
else
    found=$("${PYTHON:-python3}" --version 2>/dev/null || echo "none at all")
    echo "Python 3.11 to 3.14 is needed, found: $found. Install one (Debian, Ubuntu: apt-get install python3.12 python3.12-venv), then run again, or name it: make PYTHON=/path/to/python serve" >&2
fi
exit 1
