"""One file per route, found by the catalogue: NAMES are its paths.

A route file has METHODS, IS_OPEN (whether it is answered without a key), NEEDS_ENGINE (whether it is a 503 until the
engine is ready), BODY (the schema of its body, or None), KINDS (media types of its answers) and
`async def answer(request, server) -> Response | None`; None means that the client has left.
Called by: app.
"""
