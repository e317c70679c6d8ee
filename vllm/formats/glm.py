"""GLM-4.5 to 4.7: a name, then <arg_key>k</arg_key> and <arg_value>v</arg_value> for each argument."""

import json
from dataclasses import dataclass

from vllm.formats.format import CallSink, Format, Shape
from vllm.formats.hermes import THINK
from vllm.formats.source import Reading
from vllm.formats.tagged_calls import is_string, read_string, read_value

NAMES = ("glm45", "glm47")
_KEY, _KEY_END, _VALUE, _VALUE_END = "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"


@dataclass(frozen=True, slots=True)
class GlmCalls:
    """One call between each pair of marks."""

    begin: str = "<tool_call>"
    end: str = "</tool_call>"

    @property
    def begins(self) -> tuple[str, ...]:
        return (self.begin,)

    @property
    def markers(self) -> tuple[str, ...]:
        return (self.begin, self.end, _KEY, _KEY_END, _VALUE, _VALUE_END)

    @property
    def shape(self) -> Shape:
        argument = f"{_KEY}{{name}}{_KEY_END}\n{_VALUE}{{value}}{_VALUE_END}\n"
        return Shape(f"{self.begin}{{name}}\n", self.end, separator="\n", arguments=argument, raw_strings=True)

    def read(self, sink: CallSink, begin: str) -> Reading[None]:
        source, written = sink.source, list[str]()
        found = yield from source.until((_KEY, self.end), written.append)
        name = "".join(written).strip()
        if not found or not name or any(c.isspace() for c in name):
            sink.text(begin + "".join(written) + found)
            return
        sink.start(name)
        properties, is_first = sink.properties(name), True
        while found == _KEY:
            key: list[str] = []
            if not (yield from source.until((_KEY_END,), key.append)):
                return
            named = "".join(key).strip()
            sink.arguments(("{" if is_first else ", ") + json.dumps(named, ensure_ascii=False) + ": ")
            is_first = False
            yield from source.spaces()
            yield from source.match(_VALUE)
            read = read_string if is_string(properties.get(named)) else read_value
            if not (yield from read(sink, (_VALUE_END,))):
                return
            found = yield from source.until((_KEY, self.end), _nowhere)
        if found:
            sink.arguments("{}" if is_first else "}")
            sink.end()


def _nowhere(text: str) -> None:
    del text


FORMATS = {
    "glm45": Format(THINK, GlmCalls(), signs=("<tool_call>", "<arg_key>")),
    "glm47": Format(THINK, GlmCalls()),
}
