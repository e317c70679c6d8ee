"""The Ollama-compatible HTTP door: generate, chat, and what tells of the model.

For: Ollama's bodies and lines around the same answers that OpenAI's routes make. Does not know: torch, parsing of
answers. Invariant: a stream's lines put together are the whole answer. Called by: openai/app.
"""
