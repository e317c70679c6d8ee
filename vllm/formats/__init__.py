"""One file per chat family: its reasoning and tool-call syntax as data.

For: one description that drives the parser, the grammar and what is shown. Does not know: requests, tokens'
origin, torch. Invariant: any cut of the text into pieces gives the same result as the whole. Called by: entrypoints.
"""
