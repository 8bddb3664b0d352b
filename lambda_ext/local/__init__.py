"""Development only: run a handler on this machine as Lambda would."""
