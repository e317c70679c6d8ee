"""One file per route, as in openai/routes. Called by: openai/app."""
