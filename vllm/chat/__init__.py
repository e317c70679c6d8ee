"""Messages to a prompt: templates in a sandbox, tools, media.

For: turning a conversation into a prompt of spans. Does not know: HTTP, the engine, torch. Invariant: a
template can compute nothing but text. Called by: entrypoints.
"""
