"""Takes orders.  `make demo` runs it; see demo.py for what that proves."""

import os
import threading
import time

import lambda_ext
from lambda_ext import Secret, metrics

db = Secret("prod/orders/db", transform="json")


@lambda_ext.handler
def handler(event, context):
    """Store one order; count it also when it is refused."""
    metrics.count("orders", channel=event["channel"])
    if not event["items"]:
        raise ValueError(f"order {event['id']} has no items")
    metrics.count("items", len(event["items"]))
    if event.get("check_stock"):
        threading.Thread(target=check_stock, daemon=True).start()
    return {"order": event["id"], "stored_by": db.value["user"]}


def check_stock():
    """Go through the stock after the response, in the background."""
    gate = os.environ.get("ORDERS_GATE", "")  # the demo opens it: see there
    while gate and not os.path.exists(gate):
        time.sleep(0.005)
    for article in range(100):
        metrics.count("stock.checked", article=f"{article:03}")
    print("background: 100 metrics recorded, done")
