"""What the feature is: see the package."""

NAMES = ("pooling",)
KEY = "pooling"
"""The name under which a request carries what is to be done with its states."""
SEAMS = ("S4",)
REFUSES: dict[str, str] = {"structured_output": "an embedding is no text"}
