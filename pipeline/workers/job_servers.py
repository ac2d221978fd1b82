"""The options of Beam's job servers for Flink and Spark, which its Python side doesn't know.

They are those of ``FlinkPipelineOptions`` and ``SparkPipelineOptions`` of Beam 2.77's Java side
(https://beam.apache.org/documentation/runners/flink/ and .../spark/ list them), as they are said in
Python. Any other name is mistyped.
"""

_FLINK = """
    allow_non_restored_state attached_mode auto_balance_write_files_sharding_enabled
    auto_watermark_interval checkpoint_timeout_millis checkpointing_interval checkpointing_mode
    enable_stable_input_drain execution_mode_for_batch execution_retry_delay
    externalized_checkpoints_enabled fail_on_checkpointing_errors faster_copy files_to_stage
    finish_bundle_before_checkpointing flink_conf_dir flink_master
    force_unaligned_checkpoint_enabled jar_cache_enabled job_check_interval_in_secs
    latency_tracking_interval max_bundle_size
    max_bundle_time_mills max_parallelism min_pause_between_checkpoints num_concurrent_checkpoints
    number_of_execution_retries object_reuse operator_chaining parallelism
    re_iterable_group_by_key_result retain_externalized_checkpoints_on_cancellation savepoint_path
    shutdown_sources_after_idle_ms state_backend state_backend_factory state_backend_storage_path
    tolerable_checkpoint_failure_number unaligned_checkpoint_enabled use_data_stream_for_batch
"""
_SPARK = """
    batch_interval_millis bundle_size cache_disabled checkpoint_dir checkpoint_duration_millis
    enable_spark_metric_sinks max_records_per_batch min_read_time_millis
    prefer_group_by_key_to_handle_hot_key read_time_percentage spark_master storage_level
    uses_provided_spark_context
"""
_KNOWN = frozenset((*_FLINK.split(), *_SPARK.split()))


def is_of_job_server(flag: str) -> bool:
    """Whether an option, or the value that follows one, may be that of a job server."""
    return not flag.startswith("-") or flag[2:].partition("=")[0] in _KNOWN
