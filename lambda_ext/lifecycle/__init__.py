"""The clockwork: what time it is, which phase this is, who is to be called."""
