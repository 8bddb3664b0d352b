"""Chooses a checkout by a feature flag, which demo.py flips between invocations."""

import lambda_ext
from lambda_ext import Flags

flags = Flags("orders", "prod", "features", poll_interval=1)


@lambda_ext.handler
def handler(event, context):
    """Say which checkout this customer gets."""
    return {"checkout": "new" if flags.enabled("new-checkout") else "old"}
