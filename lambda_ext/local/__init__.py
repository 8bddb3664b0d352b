"""
Development only: run a handler on this machine as Lambda would.

The emulator (`emulator` and what it stands on: `host`, `environment`, `agents`,
`workers`, `processes`, `endpoints`, `server`) speaks HTTP with the real runtime
client and imports nothing of the library.  `run` puts it, an AWS on loopback
and the report together for ``lambda-ext run``.
"""
