"""
Takes orders as app.py does, but reads its secret as code written for boto3 does.

ORDERS_CLIENT says how the client is made; nothing else differs.
"""

import json
import os
import threading
import time

import lambda_ext
from lambda_ext import metrics


def plain():
    """Return boto3's client, as it is."""
    import boto3  # noqa: PLC0415  only here is it needed

    return boto3.client("secretsmanager")


def cached():
    """Return a client like the one that boto3 makes, with the cache in front."""
    return lambda_ext.cached(plain())


def patched():
    """Have boto3 make clients that answer from memory."""
    lambda_ext.patch()
    return plain()


def light():
    """Return a client of boto3's shape, without loading boto3."""
    return lambda_ext.client("secretsmanager")


WAYS = {"boto3": plain, "cached": cached, "patch": patched, "client": light}
secrets = WAYS[os.environ.get("ORDERS_CLIENT", "client")]()


@lambda_ext.handler
def handler(event, context):
    """Store one order; count it also when it is refused."""
    metrics.count("orders", channel=event["channel"])
    if not event["items"]:
        raise ValueError(f"order {event['id']} has no items")
    metrics.count("items", len(event["items"]))
    if event.get("check_stock"):
        threading.Thread(target=check_stock, daemon=True).start()
    response = secrets.get_secret_value(SecretId="prod/orders/db")
    db = json.loads(response["SecretString"])
    return {"order": event["id"], "stored_by": db["user"]}


def check_stock():
    """Go through the stock after the response, in the background."""
    gate = os.environ.get("ORDERS_GATE", "")  # the demo opens it: see there
    while gate and not os.path.exists(gate):
        time.sleep(0.005)
    for article in range(100):
        metrics.count("stock.checked", article=f"{article:03}")
    print("background: 100 metrics recorded, done")
