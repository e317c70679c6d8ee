"""Chat templates as programs that can compute text and nothing more.

    source ─ parse ─ meter every loop and join ─ compile (cached) ─ render under a budget of time and text

Templates come with models, and sometimes with requests, so they are untrusted: jinja's immutable sandbox, plain data
in, limits on time and on the size of every value. Does not know: messages, tokenizers. Invariant: `render` returns
within about TIME_LIMIT seconds and holds no value above MAX_TEXT characters. Callers: chat/template.
"""

from __future__ import annotations

import datetime
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from vllm.errors import ChatTemplateError

TIME_LIMIT = 10.0  # seconds
MAX_TEXT = 16 * 2**20  # characters of a value or of the result
MAX_ITEMS = 10**6  # of a list that a template makes
MAX_SOURCE = 512 * 2**10  # characters of a template
_MAX_POWER = 10**4
_CHECK_EVERY = 256
_WIDE_PERCENT = re.compile(r"%[^a-zA-Z%]*(\d{7}|\*)|%\([^)]*\)[^a-zA-Z%]*(\d{7}|\*)")
_WIDE_BRACES = re.compile(r"\{[^{}]*:[^{}]*(\d{7}|\{)")  # also a width that is itself an argument


class TemplateFailure(ChatTemplateError, jinja2.TemplateError):
    """A template that is broken, refuses its input, or exceeds its budget."""

    def __init__(self, message: str):
        ChatTemplateError.__init__(self, message, field="chat_template")


class _Budget(threading.local):
    """What the rendering of this thread may still use."""

    deadline: float = float("inf")
    steps: int = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps % _CHECK_EVERY == 0 and time.monotonic() > self.deadline:
            raise SecurityError(f"it ran longer than {TIME_LIMIT:g} seconds")


_budget = _Budget()


def _fits(size: int, limit: int = MAX_TEXT) -> None:
    if size > limit:
        raise SecurityError(f"it makes a value of more than {limit} characters or items")


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with sizes checked before a value is made and time checked at every call."""

    intercepted_binops = frozenset(("*", "**", "+", "%"))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**":
            if not all(isinstance(x, (int, float)) and abs(x) <= _MAX_POWER for x in (left, right)):
                raise SecurityError("it raises to a power too large")
        elif operator == "*":
            for one, other in ((left, right), (right, left)):
                if isinstance(one, (str, list, tuple)) and isinstance(other, int):
                    _fits(len(one) * other, MAX_TEXT if isinstance(one, str) else MAX_ITEMS)
        elif operator == "+" and isinstance(left, (str, list, tuple)) and isinstance(right, (str, list, tuple)):
            _fits(len(left) + len(right), MAX_TEXT if isinstance(left, str) else MAX_ITEMS)
        elif operator == "%" and isinstance(left, str):
            _no_wide_format(left)
        if operator in "*+" and isinstance(left, int) and isinstance(right, int):
            _fits(left.bit_length() + right.bit_length(), 2**16)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, callee: Any, *args: Any, **named: Any) -> Any:
        _budget.step()
        owner = getattr(callee, "__self__", None)
        if isinstance(owner, str):
            args = _checked_args(owner, callee.__name__, args)
        made = super().call(context, callee, *args, **named)
        if isinstance(made, (str, list, tuple, dict)):
            _fits(len(made))
        return made

    def wrap_str_format(self, value: Any) -> Any:
        wrapped = super().wrap_str_format(value)
        if wrapped is not None and _WIDE_BRACES.search(value.__self__):
            raise SecurityError("it formats to a width too large")
        return wrapped


def _checked_args(owner: str, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of a str method, refused where the result could be far larger than what goes in."""
    if name in ("center", "ljust", "rjust", "zfill"):
        _fits(max((a for a in args if isinstance(a, int)), default=0))
    elif name == "expandtabs":
        _fits(len(owner) * max((a for a in args if isinstance(a, int)), default=8))
    elif name == "replace" and len(args) > 1:
        _fits((len(owner) + 1) * max(1, len(str(args[1]))))
    elif name == "join" and args:
        items = list(_counted(args[0]))
        _fits(sum(len(x) for x in items if isinstance(x, str)) + len(owner) * len(items))
        return (items, *args[1:])
    elif name == "translate":
        raise SecurityError("it uses str.translate")
    return args


def _no_wide_format(text: str) -> None:
    """Refuse a format whose width or precision could make a huge text."""
    if _WIDE_PERCENT.search(text):
        raise SecurityError("it formats to a width too large")


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}`: marks what the assistant says; the text is unchanged."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _SafeNamespace(jinja2.utils.Namespace):
    """`namespace()` without names that begin with an underscore."""

    def __init__(*args: Any, **named: Any) -> None:
        self, values = args[0], dict(*args[1:], **named)
        for name in values:
            _public(name)
        jinja2.utils.Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _public(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)


def _public(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"it stores the private name {name!r}")


class _MakeDict:
    """`dict(...)` without the type itself, which would be a way out."""

    def __call__(self, *args: Any, **named: Any) -> dict[Any, Any]:
        return dict(*args, **named)

    def fromkeys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)


def _metered(items: Any) -> Any:
    """Every loop goes through here; what is not iterable is left for jinja to complain about."""
    if isinstance(items, jinja2.Undefined):
        return items
    return _counted(items)


def _counted(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        _budget.step()
        yield item


def _concat(items: list[Any]) -> str:
    """The `~` operator."""
    texts = [str(item) for item in items]
    _fits(sum(map(len, texts)))
    return "".join(texts)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as models were trained on: no escaping for HTML."""
    if isinstance(indent, int):
        _fits(indent, 1000)
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


def _guard(make: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that refuses numbers large enough to make a huge value."""

    def filtered(*args: Any, **named: Any) -> Any:
        for value in (*args, *named.values()):
            if isinstance(value, int):
                _fits(abs(value), MAX_ITEMS)
        return make(*args, **named)

    filtered.__dict__.update(vars(make))  # why: the marks of pass_environment and the like live there
    return filtered


def _format_filter(text: Any, *args: Any, **named: Any) -> str:
    _no_wide_format(str(text))
    made: str = jinja2.filters.do_format(str(text), *args, **named)
    return made


def _join_filter(items: Any, between: str = "", attribute: Any = None) -> str:
    if attribute is not None:
        items = [item.get(attribute) if isinstance(item, Mapping) else None for item in items]
    texts = [str(item) for item in _counted(items)]
    _fits(sum(map(len, texts)) + len(str(between)) * len(texts))
    return str(between).join(texts)


def _replace_filter(text: Any, old: Any, new: Any, count: int | None = None) -> str:
    _fits((len(str(text)) + 1) * max(1, len(str(new))))
    return str(text).replace(str(old), str(new), -1 if count is None else count)


def _environment() -> _Environment:
    env = _Environment(
        trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=[_Generation, loopcontrols], cache_size=0
    )
    for name in ("center", "indent", "batch", "slice", "wordwrap", "truncate", "round"):
        env.filters[name] = _guard(env.filters[name])
    env.filters |= {"tojson": _tojson, "format": _format_filter, "join": _join_filter, "replace": _replace_filter}
    env.filters |= {"_metered": _metered, "_concat": _concat}
    env.globals.pop("lipsum", None)
    env.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "dict": _MakeDict(),
        "namespace": _SafeNamespace,
    }
    return env


_ENV = _environment()


@lru_cache(maxsize=64)
def parse(source: str) -> nodes.Template:
    """The syntax tree of a template. Raises TemplateFailure."""
    if len(source) > MAX_SOURCE:
        raise TemplateFailure(f"The chat template has {len(source)} characters; at most {MAX_SOURCE} are read.")
    try:
        return _ENV.parse(source)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateFailure(f"The chat template is broken at line {error.lineno}: {error.message}.") from None
    except (RecursionError, MemoryError):
        raise TemplateFailure("The chat template is nested too deep.") from None


@lru_cache(maxsize=64)
def _compiled(source: str) -> jinja2.Template:
    try:
        tree = _ENV.parse(source)
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, "_metered", [], [], None, None).set_lineno(loop.lineno)
        _replace_concat(tree)
        code = _ENV.compile(tree)
        return jinja2.Template.from_code(_ENV, code, _ENV.make_globals(None))
    except jinja2.TemplateSyntaxError as error:
        raise TemplateFailure(f"The chat template is broken at line {error.lineno}: {error.message}.") from None
    except (RecursionError, MemoryError):
        raise TemplateFailure("The chat template is nested too deep.") from None


def _replace_concat(node: nodes.Node) -> None:
    """Every `a ~ b` as a filter whose size is checked."""
    for name, value in node.iter_fields():
        children = value if isinstance(value, list) else [value]
        for at, child in enumerate(children):
            if not isinstance(child, nodes.Node):
                continue
            _replace_concat(child)
            if isinstance(child, nodes.Concat):
                items = nodes.List(child.nodes).set_lineno(child.lineno)
                swapped = nodes.Filter(items, "_concat", [], [], None, None).set_lineno(child.lineno)
                swapped.set_environment(_ENV)
                if isinstance(value, list):
                    value[at] = swapped
                else:
                    setattr(node, name, swapped)


def render(source: str, variables: Mapping[str, Any]) -> str:
    """The text that a template makes of plain data. Raises TemplateFailure saying what went wrong."""
    parse(source)
    template = _compiled(source)
    _budget.deadline, _budget.steps = time.monotonic() + TIME_LIMIT, 0
    pieces: list[str] = []
    size = 0
    try:
        for piece in template.generate(variables):
            _budget.step()
            size += len(piece)
            _fits(size)
            pieces.append(piece)
    except SecurityError as error:
        raise TemplateFailure(f"The chat template was stopped: {error.message}.") from None
    except jinja2.UndefinedError as error:
        raise TemplateFailure(f"The chat template needs what it was not given: {error.message}.") from None
    except jinja2.TemplateError as error:
        raise TemplateFailure(f"The chat template does not accept these messages: {error.message}") from None
    except (RecursionError, MemoryError):
        raise TemplateFailure("The chat template was stopped: it calls itself too deep.") from None
    except Exception as error:  # why: a template can provoke any error of Python on the data it is given
        raise TemplateFailure(f"The chat template failed: {type(error).__name__}: {error}.") from None
    finally:
        _budget.deadline = float("inf")
    return "".join(pieces)
