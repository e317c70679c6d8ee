"""The one place where the version is written; the wheel, the CLI and the server read it from here."""

__version__ = "1.0.0"
__version_tuple__ = tuple(int(part) if part.isdigit() else part for part in __version__.replace("+", ".").split("."))
