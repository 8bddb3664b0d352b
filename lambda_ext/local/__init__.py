"""
Development only: run a handler on this machine as Lambda would.

The emulator (`emulator` and what it stands on: `environment`, `agents`,
`workers`, `processes`, `endpoints`, `server`) speaks HTTP with the real runtime
client and imports nothing of the library.  What happens is noted in one
`journal`.  `run` takes `steps` with the emulator and an AWS on loopback
(`aws_server`), `verdict` judges what was seen, `report` prints it.
"""
