"""A start in its own process, with the time of each stage: `python -m vllm.entrypoints.bench.probe SPAWNED_AT ARGS`.

    python   from being started to this file's first line
    import   `from vllm import LLM, SamplingParams`
    config   the arguments, read and checked
    planning the model's folder, its description, the Plan
    device   its facts: where there is a GPU, torch is imported for them
    torch    importing torch, where it was not, and the rooms of the worker
    weights  reading them and placing them on the device
    kernels  building the network: kernels, graphs, cache, buffers
    workers  in place of the three before, where workers are processes of their own
    other    tokenizer, engine and whatever is not named
    first    the first token of a short prompt

ARGS is JSON of EngineArgs' keywords; the last line that is printed is JSON: [stage -> seconds, what was started where].
Called by: startup.
"""

import json
import sys
import time

_BEGAN = time.time()


class _Stages:
    """Seconds by stage; a stage inside another is taken off the outer one by the caller."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, name, call):
        """`call`, its time added to a stage."""

        def timed(*args, **kwargs):
            began = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

        return timed


def measure(spawned: float, keywords: dict) -> tuple[dict[str, float], dict[str, str]]:
    """Start an engine, generate one token, and say where the time went; what was started where."""
    stages = _Stages()
    stages.seconds["python"] = max(0.0, _BEGAN - spawned)

    def public():
        from vllm import LLM, SamplingParams

        return LLM, SamplingParams

    llm_class, params_class = stages.timed("import", public)()

    def read():
        from vllm.config.args import EngineArgs

        return EngineArgs(**keywords)

    args = stages.timed("config", read)()

    def whole():
        from vllm import assembly

        _watch(assembly, stages)
        return llm_class.from_engine_args(args)

    began = time.perf_counter()
    llm = whole()
    ready = time.perf_counter() - began
    inside = sum(stages.seconds.get(name, 0.0) for name in ("planning", "torch", "weights", "kernels", "workers"))
    stages.seconds["other"] = max(0.0, ready - inside)
    stages.seconds["planning"] -= stages.seconds["device"]
    prompt = {"prompt_token_ids": [2, 3, 4, 5]}
    params = params_class(max_tokens=1, temperature=0.0, detokenize=False)
    stages.timed("first", llm.generate)([prompt], params, use_tqdm=False)
    plan = llm.llm_engine.assembled.plan
    llm.close()
    from vllm.assembly import device_facts
    from vllm.entrypoints.bench.recorded import yardstick

    name = yardstick(plan.architecture, plan.num_parameters, plan.worker.quantization)
    return dict(stages.seconds), {"model": name or keywords.get("model") or "builtin", "device": device_facts().name}


def _watch(assembly, stages) -> None:
    """Time the stages of `assembly.assemble` where they are called."""
    assembly.make_plan = stages.timed("planning", assembly.make_plan)
    assembly.device_facts = stages.timed("device", assembly.device_facts)
    make_executor = assembly.make_executor

    def watched(workers):
        if not workers.is_local:
            return stages.timed("workers", make_executor)(workers)

        def rooms():
            from vllm.executor import local

            return local

        local = stages.timed("torch", rooms)()
        local.load_weights = stages.timed("weights", local.load_weights)
        local.make_runner = stages.timed("kernels", local.make_runner)
        local.make_foreign_runner = stages.timed("kernels", local.make_foreign_runner)
        return make_executor(workers)

    assembly.make_executor = watched


if __name__ == "__main__":
    print(json.dumps(measure(float(sys.argv[1]), json.loads(sys.argv[2]))), flush=True)
