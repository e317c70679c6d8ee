"""vLLM's keywords and flags that are not ours: each is accepted with a reason, or refused with one.

A table and the few lines that read it. A word is *ignored* when it only tunes speed or logging, or limits something
that is not here; it is *refused* when silence would change answers, limits or security. Either way the value that vLLM
itself takes by default is accepted without a word, so scripts that pass every default still run.
Does not know: our own knobs. Callers: args, cli.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vllm.errors import RefusedError, quoted


@dataclass(frozen=True, slots=True)
class Other:
    """One word of vLLM's: its fate, why, and the values that ask for nothing."""

    is_refused: bool
    why: str
    harmless: tuple[Any, ...] = ()


def _words(text: str) -> dict[str, tuple[Any, ...]]:
    """Names without a default of their own: only None, False and empty values ask for nothing."""
    return dict.fromkeys(text.split(), ())


_IGNORED: dict[str, dict[str, tuple[Any, ...]]] = {
    "kernels are chosen when the engine is planned": {
        **_words("attention_backend attention_config kernel_config ir_op_priority enable_flashinfer_autotune"),
        **_words("disable_cascade_attn use_fp64_gumbel kv_sharing_fast_prefill "),
        "moe_backend": ("auto",),
        "linear_backend": ("auto",),
        "sparse_indexer_topk_backend": ("auto",),
        "mamba_backend": ("auto",),
        "mamba_ssu_algorithm": ("auto",),
        "gdn_prefill_backend": ("auto",),
        "kda_prefill_backend": ("auto",),
        "kda_decode_backend": ("auto",),
    },
    "nothing is compiled by torch.compile here, and graphs are sized by planning": {
        **_words("compilation_config cudagraph_capture_sizes max_cudagraph_capture_size cuda_graph_sizes"),
        **_words("max_seq_len_to_capture max_context_len_to_capture"),
        "optimization_level": (0, 1, 2, 3),
        "performance_mode": ("balanced",),
    },
    "files are mapped and read ahead in one way": {
        **_words("safetensors_load_strategy ignore_patterns max_parallel_loading_workers"),
        "safetensors_prefetch_num_threads": (8,),
        "safetensors_prefetch_block_size": (16777216,),
        "use_tqdm_on_load": (True,),
        "pt_load_map_location": ("cpu",),
    },
    "how ranks talk is decided by planning": {
        **_words("disable_custom_all_reduce all2all_backend enable_expert_parallel enable_eplb eplb_config"),
        **_words("enable_ep_weight_filter enable_dbo enable_shm_tensor_arena enable_hc_sp numa_bind numa_bind_nodes"),
        **_words("numa_bind_cpus distributed_timeout_seconds cpu_distributed_timeout_seconds dcp_comm_backend"),
        **_words("dcp_q_replicate enable_batch_sharded_sampling disable_nccl_for_dp_synchronization"),
        **_words("ray_workers_use_nsight enable_nccl_comm_suspend worker_use_ray engine_use_ray master_port"),
        "master_addr": ("127.0.0.1",),
        "ubatch_size": (0,),
        "dbo_decode_token_threshold": (32,),
        "dbo_prefill_token_threshold": (512,),
        "dp_sync_interval": (16,),
        "expert_placement_strategy": ("linear",),
    },
    "the cache has one layout and one strong hash": {
        **_words("prefix_match_unit enable_mamba_shared_prefix_checkpoint use_replayssm mamba_block_size"),
        **_words("kv_offloading_size use_v2_block_manager enable_cumem_allocator"),
        "prefix_caching_hash_algo": ("sha256",),
        "prefix_cache_retention_interval": (0,),
        "swa_bounded_replay": (True,),
        "mamba_cache_mode": ("none",),
        "replayssm_buffer_len": (16,),
        "kv_offloading_backend": ("native",),
    },
    "a sequence that must wait is computed again, never swapped to host memory": {
        "swap_space": (4, 4.0),
        "preemption_mode": (),
    },
    "the scheduler has one way of doing this": {
        **_words("max_num_scheduled_tokens long_prefill_token_threshold_adaptive disable_hybrid_kv_cache_manager"),
        **_words("multi_step_stream_outputs disable_async_output_proc num_lookahead_slots disable_chunked_mm_input"),
        "max_num_partial_prefills": (1,),
        "max_long_partial_prefills": (1,),
        "scheduler_reserve_full_isl": (True,),
        "watermark": (0.0,),
        "prefill_schedule_interval": (1,),
        "num_scheduler_steps": (1,),
        "scheduler_delay_factor": (0.0,),
        "renderer_num_workers": (1,),
    },
    "speculation changes speed and never tokens, and is not in this version": {
        **_words("speculative_config spec_method spec_model spec_tokens speculative_model num_speculative_tokens"),
        **_words("speculative_draft_tensor_parallel_size speculative_disable_by_batch_size ngram_prompt_lookup_max"),
    },
    "sleep() and wake_up() need no preparation": _words(
        "enable_sleep_mode sleep_mode_offload_cudagraph sleep_preserve_parameter_names"
    ),
    "logs are set with VLLM_LOGGING_LEVEL, and metrics are always the same": {
        **_words("logging_config log_config_file disable_log_requests show_hidden_metrics_for_version"),
        **_words("collect_detailed_traces kv_cache_metrics custom_histogram_buckets"),
        **_words("cudagraph_metrics enable_layerwise_nvtx_tracing enable_mfu_metrics enable_logging_iteration_details"),
        **_words("jit_monitor_verbose aggregate_engine_logging"),
        "per_request_spec_decode_metrics": ("none",),
        "kv_cache_metrics_sample": (0.01,),
        "jit_monitor_mode": ("warn",),
    },
    "it has no effect without enable_lora": {
        **_words("max_cpu_loras fully_sharded_loras lora_target_modules specialize_active_lora lora_extra_vocab_size"),
        **_words(
            "enable_tower_connector_lora enable_mixed_moe_lora_format enable_moe_shared_loras max_lora_cls_labels"
        ),
        "max_loras": (1,),
        "max_lora_rank": (16,),
        "lora_dtype": ("auto",),
    },
    "only text is read here": {
        **_words("language_model_only limit_mm_per_prompt mm_shm_cache_max_object_size_mb skip_mm_profiling"),
        **_words("disable_mm_preprocessor_cache mm_encoder_only mm_encoder_attn_backend mm_device_do_normalize"),
        **_words("mm_encoder_fp8_scale_path mm_encoder_fp8_scale_save_path mm_encoder_attn_dtype video_pruning_rate"),
        "mm_processor_cache_gb": (4,),
        "mm_processor_cache_type": ("lru",),
        "mm_hasher_algorithm": ("blake3",),
        "mm_encoder_tp_mode": ("weights",),
        "mm_encoder_fp8_scale_save_margin": (1.5,),
        "video_pruning_method": ("evs",),
        "mm_tensor_ipc": ("direct_rpc",),
        "mm_processor_device": ("auto",),
        "mm_ipc_gpu_memory_gb": (0,),
    },
    "there is one backend for it": _words("guided_decoding_backend enable_reasoning allow_deprecated_quantization"),
}

_REFUSED: dict[str, dict[str, tuple[Any, ...]]] = {
    "LoRA adapters are not in this version": _words(
        "enable_lora default_mm_loras lora_modules qlora_adapter_name_or_path"
    ),
    "use pooler_config": _words("override_pooler_config"),
    "images, audio and video are not in this version": _words(
        "allowed_local_media_path allowed_media_domains enable_mm_embeds media_io_kwargs mm_processor_kwargs "
        "interleave_mm_strings"
    ),
    "prompts given as embeddings are not in this version; give text or token ids": _words("enable_prompt_embeds"),
    "it would run other people's code inside the engine": {
        **_words("scheduler_cls model_class_overrides io_processor_plugin"),
        **_words("reasoning_parser_plugin logits_processor_pattern"),
        "worker_cls": ("auto",),
    },
    "weights and cache stay on the device in this version": {
        **_words("cpu_offload_gb cpu_offload_params offload_group_size offload_params kv_transfer_config"),
        **_words("kv_events_config ec_transfer_config ec_manager_config kv_cache_dtype_skip_layers"),
        "offload_backend": ("auto",),
        "offload_num_in_group": (1,),
        "offload_prefetch_step": (1,),
    },
    "weights do not come from other processes in this version": _words("weight_transfer_config"),
    "one host and one engine is what this version runs": {
        **_words("node_rank data_parallel_rank data_parallel_start_rank data_parallel_size_local"),
        **_words("data_parallel_address data_parallel_rpc_port data_parallel_hybrid_lb data_parallel_external_lb"),
        **_words("data_parallel_multi_port_external_lb enable_elastic_ep elastic_ep_max_dp_size"),
        **_words("enable_fault_tolerance fault_tolerance_config"),
        "nnodes": (1,),
        "data_parallel_backend": ("mp",),
        "decode_context_parallel_size": (1,),
        "prefill_context_parallel_size": (1,),
        "dcp_kv_cache_interleave_size": (1,),
        "cp_kv_cache_interleave_size": (1,),
    },
    "the device is chosen with CUDA_VISIBLE_DEVICES or VLLM_PLATFORM": {"device": ("auto",), "device_ids": ()},
    "say it in hf_overrides": _words("rope_scaling rope_theta hf_config_path"),
    "use max_num_seqs": _words("max_num_active_seqs"),
    "the checkpoint or quantization= says how weights are quantized": _words("quantization_config"),
    "networks are read from config.json and safetensors, not from Mistral's own files": {
        "config_format": ("auto", "hf"),
    },
    "it would change the form of the answers, and is not in this version": {
        # why: with one backend, which of them is asked for changes nothing
        "structured_outputs_config": tuple({"backend": name} for name in ("auto", "guidance", "xgrammar", "outlines")),
        **_words("reasoning_config additional_config watermark_config"),
        **_words("diffusion_config engram_config aux_output_config enable_return_routed_experts return_sampling_mask"),
        **_words("enable_trace_replay enable_mamba_cache_stochastic_rounding model_loader_extra_config"),
        **_words("calculate_kv_scales override_neuron_config"),
        "mamba_cache_philox_rounds": (0,),
        "mamba_cache_dtype": ("auto",),
        "mamba_ssm_cache_dtype": ("auto",),
    },
}


def _table() -> dict[str, Other]:
    table: dict[str, Other] = {}
    for is_refused, groups in ((False, _IGNORED), (True, _REFUSED)):
        for why, names in groups.items():
            for name, harmless in names.items():
                assert name not in table, name
                table[name] = Other(is_refused, why, harmless)
    return table


OTHERS = _table()
_NO_MATTER = {"structured_outputs_config": {"backend", "disable_fallback"}}
"""Keys of a dict that only say by what means; there is one here."""


def judge(given: dict[str, Any]) -> list[str]:
    """A few words for each ignored key of `given`, all in OTHERS. Raises RefusedError for a refused one."""
    ignored = []
    for name, value in given.items():
        other = OTHERS[name]
        if value is None or value is False or value in ("", [], {}, ()) or value in other.harmless:
            continue
        if name in _NO_MATTER and isinstance(value, dict) and value.keys() <= _NO_MATTER[name]:
            continue
        if value == 0 and not isinstance(value, bool) and not other.harmless:
            continue
        if other.is_refused:
            message = f"{name}={quoted(value)} is not accepted: {other.why}."
            raise RefusedError(message, field=name, value=value, remedy=f"Leave {name} out.")
        ignored.append(f"{name} ({other.why})")
    return ignored
