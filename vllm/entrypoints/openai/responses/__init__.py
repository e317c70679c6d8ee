"""OpenAI's Responses around the chat answer that all APIs share.

For: items in, items out, events, and the store that previous_response_id reads. Does not know: torch, parsing of
answers. Invariant: a stream's events put together are the whole response. Called by: routes/responses*.
"""
