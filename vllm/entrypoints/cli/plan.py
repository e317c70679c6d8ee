"""`vllm plan`: what would run and in how many bytes, decided as for a real start, with nothing loaded.

With --gpu or --memory for another machine, from config.json alone. With --ops also the kernel of each op: kernels say
in torch's words where they run, so only then torch is imported.

Called by: entrypoints/cli/main.py.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vllm.config.args import EngineArgs
    from vllm.planning.memory import Network
    from vllm.planning.plan import Plan
    from vllm.protocol.facts import DeviceFacts

NAMES = ("plan",)
HELP = "print what would run, in how many bytes, and why, here or on another machine; loads nothing"
_SIZES = (1, 2, 4, 8)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the machine, and every knob of the engine."""
    from vllm.config.args import EngineArgs

    parser.add_argument("model_tag", nargs="?", metavar="MODEL", help="folder or hub id; default the built-in model")
    parser.add_argument("--gpu", metavar="NAME", help="plan for machines with this GPU, such as H200 or RTX-4090")
    parser.add_argument("--gpus", type=int, default=8, metavar="N", help="how many of them (default: 8)")
    parser.add_argument("--memory", metavar="SIZE", help="memory of the device, such as 24GiB")
    parser.add_argument("--ops", action="store_true", help="also print the kernel that each operation would run")
    EngineArgs.add_cli_args(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the Plan, and the other ways to run the model; 2 when it does not fit as asked."""
    from vllm.assembly import device_facts, make_plan
    from vllm.config.args import EngineArgs
    from vllm.planning import outlook
    from vllm.planning.known import rates

    if arguments.model_tag is not None:
        arguments.model = arguments.model_tag
    args = EngineArgs.from_cli_args(arguments)
    device = _device(arguments, device_facts)
    plan, network, status = _planned(args, device)
    sizes = tuple(size for size in _SIZES if size <= (device.count if device.kind == "cuda" else device.num_cores))
    methods = ("as stored", "int8") if device.kind == "cpu" else ("as stored", "fp8")
    found = outlook.options(args, lambda asked: make_plan(asked, weights=False, device=device)[2], sizes, methods)
    if plan is not None:
        print(outlook.text(plan, network, rates(device), found))
    else:
        print("\n".join(outlook.side_by_side(network, rates(device), found, 4096)))
    if arguments.ops and plan is not None:
        from vllm.worker.kernels import table

        print(table(network, plan.worker, plan.kv))
    return status


def _planned(args: "EngineArgs", device: "DeviceFacts") -> "tuple[Plan | None, Network, int]":
    """(the Plan as asked, or with the longest context that fits, or None; the network; the exit status)."""
    from vllm.assembly import find_network, make_plan, override
    from vllm.engine.folder import find_folder
    from vllm.errors import CapacityError
    from vllm.planning.describe import read_config

    try:
        _, described, plan = make_plan(args, weights=False, device=device)
        print(plan.text())
        return plan, described.decoder, 0
    except CapacityError as error:
        print(f"vllm plan: {error}", file=sys.stderr, flush=True)
    try:
        _, described, plan = make_plan(replace(args, max_model_len="auto"), weights=False, device=device)
        print(f"With max_model_len='auto':\n{plan.text()}")
        return plan, described.decoder, 2
    except CapacityError:
        folder = find_folder(args, weights=False)
        return None, find_network(args, folder, override(read_config(folder), args.hf_overrides)).decoder, 2


def _device(arguments: argparse.Namespace, here: Callable[[], "DeviceFacts"]) -> "DeviceFacts":
    """The machine to plan for."""
    from vllm.errors import ValidationError
    from vllm.planning.known import HELD_BACK, facts_of
    from vllm.util.arith import parse_size

    if arguments.gpus < 1:
        raise ValidationError.of("gpus", arguments.gpus, "at least 1")
    device = facts_of(arguments.gpu, arguments.gpus) if arguments.gpu else here()
    if arguments.memory is None:
        return device
    try:
        size = parse_size(arguments.memory)
    except ValueError as error:
        raise ValidationError(f"memory: {error}.", field="memory", value=arguments.memory) from None
    if size < 64 << 20:
        raise ValidationError.of("memory", arguments.memory, "at least 64 MiB, such as 24GiB")
    return replace(device, total_bytes=size, free_bytes=int(size * HELD_BACK) if device.kind == "cuda" else size)
