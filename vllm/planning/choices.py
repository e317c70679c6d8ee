"""Notes of what was decided for the user: (knob, value, why). Called by: the rooms of planning."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Choices:
    """Grows while a plan is made; the Plan keeps its rows."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def note(self, knob: str, value: object, why: str) -> None:
        """`why` is half a sentence."""
        self.rows.append((knob, str(value), why))
