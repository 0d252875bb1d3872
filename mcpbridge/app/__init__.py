"""The program: `build` assembles it without any I/O, `serve` is its life from start to end.

`early` keeps signals until `serve` hears them; `health` is the small client behind `mcpbridge
health`.
"""
