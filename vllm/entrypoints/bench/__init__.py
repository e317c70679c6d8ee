"""What `vllm bench` measures: a file with NAMES per measurement, the others help them.

    latency, throughput ─┐                         serve ─▶ arrivals ─▶ client ─▶ any OpenAI server
    engine ─▶ cases      ├─▶ offline ─▶ LLM               └▶ outcome ─▶ figures ─▶ report
    startup ─▶ probe, in a fresh process each time

Only what runs an engine imports torch. Called by: entrypoints/cli/bench.py.
"""
