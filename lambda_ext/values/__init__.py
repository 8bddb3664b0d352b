"""Inward: secrets and parameters, loaded in few calls and held in memory."""
