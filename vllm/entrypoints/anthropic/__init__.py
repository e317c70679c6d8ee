"""The Anthropic-compatible HTTP door: Messages.

For: Anthropic's bodies and events around the same chat answer that OpenAI's routes make. Does not know: torch, parsing
of answers. Invariant: a stream's events put together are the whole message. Called by: openai/app.
"""
