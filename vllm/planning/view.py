"""A Plan as vLLM's configuration objects: what users' code in the engine reads. Does not know: engines.

Called by: assembly, entrypoints.
"""

from vllm.config.objects import (
    CacheConfig,
    DeviceConfig,
    LoadConfig,
    ModelConfig,
    ParallelConfig,
    SchedulerConfig,
    VllmConfig,
)
from vllm.planning.describe import Described
from vllm.planning.plan import Plan


def config_view(plan: Plan, described: Described) -> VllmConfig:
    """The numbers of the plan under vLLM's names; changing them changes nothing."""
    worker, raw = plan.worker, described.config.raw()
    hf = ModelConfig(raw)
    return VllmConfig(
        model_config=ModelConfig(
            model=plan.load.path,
            tokenizer=plan.load.path,
            max_model_len=plan.scheduler.max_model_len,
            dtype=worker.dtype,
            max_seq_len_to_capture=plan.scheduler.max_model_len,
            max_logprobs=worker.max_logprobs,
            quantization=None if worker.quantization == "none" else worker.quantization,
            enforce_eager=worker.enforce_eager,
            hf_config=hf,
            hf_text_config=ModelConfig(raw.get("text_config") or raw),
            get_vocab_size=lambda: described.decoder.vocab,
        ),
        cache_config=CacheConfig(
            block_size=plan.kv.groups[0].block_size,
            num_gpu_blocks=plan.kv.num_blocks,
            num_cpu_blocks=0,
            cache_dtype=plan.kv.dtype,
            enable_prefix_caching=plan.scheduler.enable_prefix_caching,
        ),
        scheduler_config=SchedulerConfig(
            max_num_seqs=plan.scheduler.max_num_seqs,
            max_num_batched_tokens=plan.scheduler.max_num_batched_tokens,
            max_model_len=plan.scheduler.max_model_len,
            policy=plan.scheduler.policy,
            enable_chunked_prefill=plan.scheduler.enable_chunked_prefill,
        ),
        parallel_config=ParallelConfig(
            tensor_parallel_size=worker.tp_size,
            pipeline_parallel_size=worker.pp_size,
            data_parallel_size=1,
            world_size=worker.tp_size * worker.pp_size,
        ),
        device_config=DeviceConfig(device=worker.device, device_type=worker.device.partition(":")[0]),
        load_config=LoadConfig(load_format=plan.load.load_format),
        lora_config=None,
        speculative_config=None,
        plan=plan,
    )
