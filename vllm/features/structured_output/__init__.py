"""Structured output: the text follows a JSON schema, a regex, a choice, a grammar or the syntax of tool calls.

    params ─▶ caps, source ─▶ trial (a process that may be killed) ─▶ request.features ─▶ compiler ─▶ matcher per row
              host                                                    ─▶ resource (S1)     row state (S2), stage (S4)

A hostile schema costs its own request only: caps are checked before any library sees it, it is compiled and walked
through once in a process with limits, and a matcher that fails later fails its own sequence.
"""
