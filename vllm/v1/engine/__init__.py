"""Facade: holds import paths of vLLM; nothing lives here."""
