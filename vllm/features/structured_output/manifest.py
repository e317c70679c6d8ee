"""What the feature is: see the package."""

NAMES = ("structured_output",)
KEY = "structured_output"
"""The name under which a request carries its constraint."""
SEAMS = ("S1", "S2", "S4")
REFUSES: dict[str, str] = {}
