# Each target is a script; without make, run the script's line itself.
PY = .venv/bin/python

.PHONY: setup serve test kernels fmt check gpu gpu-deps e2e fault slow bench docs house package
setup: ; @sh scripts/setup.sh dev
serve: ; @sh scripts/setup.sh && exec $(PY) -m vllm.entrypoints.cli.main serve $(ARGS)
test: ; @sh scripts/setup.sh test && exec sh scripts/test.sh
fmt: ; @sh scripts/setup.sh dev && $(PY) -m ruff check --fix . && $(PY) -m ruff format .
check: ; @sh scripts/setup.sh dev && exec sh scripts/check.sh
house: ; @sh scripts/setup.sh test && exec $(PY) -m tools.house
package: ; @sh scripts/setup.sh test && exec sh scripts/package.sh $(VERSION)
kernels: ; @sh scripts/setup.sh test && exec sh scripts/kernels.sh
gpu: ; @exec sh scripts/gpu.sh
gpu-deps: ; @exec sh scripts/gpu_deps.sh
e2e fault: ; @sh scripts/setup.sh e2e && exec sh scripts/test.sh tests/$@ -m "not gpu and not multi_gpu and not network"
slow: ; @sh scripts/setup.sh e2e && exec sh scripts/test.sh -m "slow and not gpu and not multi_gpu and not network" $(ARGS)
bench: ; @sh scripts/setup.sh && exec $(PY) -m benchmarks
docs: ; @sh scripts/setup.sh docs && $(PY) -m tools.house docs && $(PY) -m tools.house.site && exec sh scripts/test.sh tests/house/test_docs.py tests/e2e/test_documents.py -m "slow or not slow"
