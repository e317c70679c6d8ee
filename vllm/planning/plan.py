"""The Plan: everything that will happen, decided before the first byte is loaded. Frozen, complete, explains itself.

Nothing changes it afterwards; rooms get the section they need. `choices` says of each automatic choice what and why.
"""

from dataclasses import dataclass

from vllm.protocol.kv import KVPlan
from vllm.protocol.plan import LoadPlan, SchedulerPlan, WorkerPlan
from vllm.util.arith import human_bytes


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on one rank's device."""

    weights: int
    kv: int
    activations: int
    fixed: int
    """Context, workspaces, graphs: measured constants of the platform; on a CPU the tokenizer too."""
    loading: int = 0
    """What weights take at most while they are read and quantized, where that is done here; 0: no more than later."""

    @property
    def total(self) -> int:
        """All of it, when the cache is full and a step is the largest."""
        return self.weights + self.kv + self.activations + self.fixed

    @property
    def at_start(self) -> int:
        """Before the first request, where memory comes as it is written (a CPU)."""
        return self.weights + self.fixed


@dataclass(frozen=True, slots=True)
class Plan:
    """What `resolve` decided."""

    architecture: str
    num_parameters: int
    scheduler: SchedulerPlan
    worker: WorkerPlan
    kv: KVPlan
    load: LoadPlan
    memory: Memory
    max_tokens_in_cache: int
    """The longest single sequence that the KV pool can hold."""
    choices: tuple[tuple[str, str, str], ...]
    """(knob, value, why)"""

    def text(self) -> str:
        """The plan for a person to read."""
        m, w, s = self.memory, self.worker, self.scheduler
        lines = [
            f"{self.architecture}: {self.num_parameters:,} parameters as {w.dtype} on {w.device}",
            f"  weights      {human_bytes(m.weights)}",
            f"  KV cache     {human_bytes(m.kv)}: {self.kv.num_blocks - 1:,} blocks, {self._per_token()} per token, "
            f"{self.max_tokens_in_cache:,} tokens in one sequence at most",
            f"  activations  {human_bytes(m.activations)} (a step of {s.max_num_batched_tokens} tokens)",
            f"  fixed        {human_bytes(m.fixed)}",
            f"  in all       {human_bytes(m.total)} per rank, {w.tp_size * w.pp_size} rank(s){self._when()}",
            f"  limits       context {s.max_model_len:,}, {s.max_num_seqs} sequences, policy {s.policy}",
            "choices:",
        ]
        return "\n".join(lines + [f"  {knob} = {value}: {why}" for knob, value, why in self.choices])

    def _when(self) -> str:
        """On a CPU memory is taken when it is first written."""
        if self.worker.device != "cpu":
            return ""
        loads = f"; {human_bytes(self.memory.loading)} while loading" if self.memory.loading else ""
        return f", {human_bytes(self.memory.at_start)} before the first request{loads}"

    def _per_token(self) -> str:
        plan = self.kv
        per = sum(plan.num_slabs * plan.block_bytes / g.block_size for g in plan.groups)
        return human_bytes(round(per))
