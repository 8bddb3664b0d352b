"""Delivery over a network, for metric sinks and log destinations alike."""
