"""Command-line flags made from the knobs, and the parser that reads them as vLLM's users write them.

    --max-model-len 4k   --max_model_len=4096   -tp 2   --no-enable-prefix-caching   --hf-overrides.rope_theta 1e6
    --config file.yaml   (its flags come first, so the command line wins)   --help=cache

Does not know: what a knob does. Invariant: importing this costs milliseconds (argparse; yaml when a file is named).
Callers: entrypoints/cli, EngineArgs.add_cli_args, users' own scripts.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, NoReturn

from vllm.config.compat import OTHERS
from vllm.config.knob import Knob
from vllm.errors import nearest
from vllm.util.arith import parse_size

_OTHER_SHORTS = {
    "compilation_config": "-cc",
    "attention_config": "-ac",
    "speculative_config": "-sc",
    "enable_expert_parallel": "-ep",
    "nnodes": "-n",
    "node_rank": "-r",
    "decode_context_parallel_size": "-dcp",
    "prefill_context_parallel_size": "-pcp",
    "optimization_level": "-O",
    "diffusion_config": "-dc",
    "data_parallel_rank": "-dpn",
    "data_parallel_start_rank": "-dpr",
    "data_parallel_size_local": "-dpl",
    "data_parallel_address": "-dpa",
    "data_parallel_rpc_port": "-dpp",
    "data_parallel_backend": "-dpb",
    "data_parallel_hybrid_lb": "-dph",
    "data_parallel_external_lb": "-dpe",
    "data_parallel_multi_port_external_lb": "-dpm",
}
_SWITCH = re.compile(r"^(enable|disable|use|return|skip|interleave|calculate)_|_(only|metrics|bind|lb|loras|adaptive)$")
_NOT_SWITCH = {"enable_hc_sp_size", "default_mm_loras", "max_loras", "max_cpu_loras"}


def human_int(text: str) -> int:
    """`-1`, `4096`, `4k` (4,000), `4K` (4,096), `1.5M`. Raises ValueError."""
    return int(text) if text.startswith("-") else parse_size(text)


def add_section(parser: argparse.ArgumentParser, section: type) -> None:
    """A group of flags for every knob of a section."""
    title = section.__name__.removesuffix("Args") + " options"
    group = parser.add_argument_group(title)
    for f in fields(section):
        k: Knob = f.metadata["knob"]
        names = [*([f"-{k.short}"] if k.short else []), "--" + f.name.replace("_", "-")]
        if names[-1] in parser._option_string_actions:  # why: a script's own flag of that name was there first
            continue
        note = "" if f.default in (None, False, True) else f" (default: {f.default})"
        help_text = (k.help + note).replace("%", "%%")
        group.add_argument(*names, dest=f.name, default=f.default, help=help_text, **_reading(k))


def _reading(k: Knob) -> dict[str, Any]:
    """argparse's words for a kind of knob."""
    if k.kind == "bool":
        return {"action": argparse.BooleanOptionalAction}
    if k.kind == "int":
        return {"type": lambda text: text if text in k.words else _checked(human_int, text, "a whole number")}
    if k.kind == "float":
        return {"type": lambda text: _checked(float, text, "a number")}
    if k.kind == "strings":
        return {"nargs": "+"}
    if k.kind == "json":
        return {"type": lambda text: _checked(json.loads, text, "JSON")}
    if k.kind == "any":
        return {"type": _json_or_text, "nargs": "?", "const": True}
    return {"choices": k.choices} if k.choices else {}


def _checked(read: Any, text: str, what: str) -> Any:
    try:
        return read(text)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}") from None


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def add_others(parser: argparse.ArgumentParser) -> None:
    """Hidden flags for vLLM's words that are not ours, so that they can be judged instead of unknown."""
    for name in OTHERS:
        flag = "--" + name.replace("_", "-")
        if flag in parser._option_string_actions:
            continue
        names = [flag, *([_OTHER_SHORTS[name]] if name in _OTHER_SHORTS else [])]
        hidden: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": argparse.SUPPRESS}
        if _SWITCH.search(name) and name not in _NOT_SWITCH:
            parser.add_argument(*names, action=argparse.BooleanOptionalAction, **hidden)
        else:
            parser.add_argument(*names, type=_json_or_text, **hidden)


class FlexibleArgumentParser(argparse.ArgumentParser):
    """ArgumentParser that takes underscores, dotted JSON flags, `--config FILE` and `--help=WORD`."""

    def __init__(self, *args: Any, **more: Any):
        more.setdefault("allow_abbrev", False)
        super().__init__(*args, **more)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        parsed, rest = self.parse_known_args(args, namespace)
        if rest:
            flag = next((word for word in rest if word.startswith("-")), rest[0]).split("=")[0]
            self.error(f"unknown argument {flag}.{nearest(flag, _all_flags(self))}")
        return parsed

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        words = expand(sys.argv[1:] if args is None else args, self._fail)
        asked = [word.partition("=")[2] for word in words if word.startswith("--help=")]
        if asked and not self._subparsers:
            self._help_about(asked[0])
        return super().parse_known_args(words, namespace)

    @staticmethod
    def check_port(value: str) -> int:
        """A TCP port, for `type=`."""
        port = _checked(int, value, "a whole number")
        if not 0 <= port <= 65535:
            raise argparse.ArgumentTypeError(f"{value!r} is not a port (0 to 65535)")
        return int(port)

    def error(self, message: str) -> NoReturn:
        """One line and the exit status 2: of three hundred flags the usage would hide it."""
        self.exit(2, f"{self.prog}: error: {message.rstrip('.')}. See {self.prog} --help.\n")

    def _fail(self, message: str) -> NoReturn:
        self.error(message)

    def _help_about(self, word: str) -> NoReturn:
        """Print the groups whose title, or the flags whose name, holds `word`; `all` prints everything."""
        if word.lower() == "all":
            self.print_help()
            self.exit()
        wanted = word.lower().replace("_", "-")
        formatter = self._get_formatter()
        for group in self._action_groups:
            whole = wanted in (group.title or "").lower()
            actions = [a for a in group._group_actions if whole or any(wanted in o for o in a.option_strings)]
            formatter.start_section(group.title)
            formatter.add_arguments([a for a in actions if a.help is not argparse.SUPPRESS])
            formatter.end_section()
        self._print_message(formatter.format_help() or f"no flag is like {word!r}\n", sys.stdout)
        self.exit()


def expand(words: Iterable[str], fail: Any) -> list[str]:
    """A command line as argparse can read it (see the module docstring). Calls `fail(message)` for a bad file."""
    out: list[str] = []
    dotted: dict[str, dict[str, Any]] = {}
    rest = iter(words)
    for word in rest:
        if word == "--":
            return [*out, *_joined(dotted), word, *rest]
        flag, eq, value = word.partition("=")
        if not re.match(r"--?[A-Za-z]", flag):
            out.append(word)
            continue
        path = flag.split(".")
        path[0] = path[0].replace("_", "-") if flag.startswith("--") else path[0]
        if path[0] == "--config":
            out = _with_file(out, value if eq else next(rest, ""), fail)
        elif len(path) > 1:
            _put(dotted.setdefault(path[0], {}), path[1:], value if eq else next(rest, ""), fail)
        else:
            out.append(path[0] + eq + value)
    return [*out, *_joined(dotted)]


def _joined(dotted: dict[str, dict[str, Any]]) -> list[str]:
    return [f"{flag}={json.dumps(value)}" for flag, value in dotted.items()]


def _put(target: dict[str, Any], path: list[str], text: str, fail: Any) -> None:
    """Set target[a][b] for path a.b; a last name ending in `+` appends to a list."""
    for name in path[:-1]:
        target = target.setdefault(name, {})
        if not isinstance(target, dict):
            fail(f"{'.'.join(path)} gives a value to a name that has one already")
    last, value = path[-1], _json_or_text(text)
    if last.endswith("+"):
        target.setdefault(last[:-1], []).append(value)
    else:
        target[last] = value


def _with_file(words: list[str], path: str, fail: Any) -> list[str]:
    """The flags of a YAML file, put after the leading positionals of `words`, so that later words win."""
    try:
        import yaml
    except ImportError:
        fail("--config needs the package pyyaml")
    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.safe_load(file) or {}
    except OSError as error:
        fail(f"--config {path}: {error.strerror or error}")
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        fail(f"--config {path}: this is not YAML: {' '.join(str(error).split())}")
    if not isinstance(content, dict):
        fail(f"--config {path}: the file must be a mapping of flag to value")
    lists, scalars = [], []
    for name, value in content.items():
        flag = "--" + str(name).replace("_", "-")
        if isinstance(value, bool):
            scalars.append(flag if value else "--no-" + flag[2:])
        elif isinstance(value, list):
            lists += [flag, *map(_as_word, value)]
        elif value is not None:
            scalars.append(f"{flag}={_as_word(value)}")
    lead = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    # why: lists first, so that the flag after them ends them
    return [*words[:lead], *lists, *scalars, *words[lead:]]


def _as_word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _all_flags(parser: argparse.ArgumentParser) -> set[str]:
    """Every long flag of a parser and its subcommands."""
    found = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                found |= _all_flags(child)
    return {flag for flag in found if flag.startswith("--")}
