"""The Python side of a replica: imports an app's code, runs its functions, reports over one socket.

Standard library only, Python 3.8 and later. The wire is specified in `protocol/README.md`. Reading order: `loop`
(what a replica does), `contract` (how a call meets a function), `channel` and `frames` (the wire), `logs`, `encode`,
`failure`.
"""
