"""
A router of logs in the handler's own process: what is otherwise an extension.

Errors go to one receiver, the other lines to another one; what the platform
measures becomes metrics in CloudWatch and spans at a collector.  With receivers
that take lines of JSON, and a collector, on this machine:

    lambda-ext run app.handler --event events/burst.json --repeat 3 \\
        --env ERRORS=http://127.0.0.1:8080/errors \\
        --env LOGS=http://127.0.0.1:8080/logs \\
        --env OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318
"""

import json
import os

import lambda_ext
from lambda_ext import telemetry
from lambda_ext.telemetry import destinations

telemetry.route(where="function", level=">=ERROR").to(
    destinations.http(os.environ["ERRORS"], name="errors")
)
telemetry.route(where="function", level="<ERROR").to(
    destinations.http(os.environ["LOGS"], name="logs"),
    limit=int(os.environ.get("LIMIT", "20000")),
    drop="oldest",
)
telemetry.route(where="platform").to(destinations.metrics())
telemetry.route(where="platform").to(destinations.spans())
telemetry.subscribe(platform=True, function=True, timeout_ms=100)


@lambda_ext.handler
def handler(event, context):
    for number in range(event["lines"]):
        level = "ERROR" if number % 10 == 9 else "INFO"
        print(json.dumps({"level": level, "message": f"{event['name']} {number}"}))
    return event["name"]


@lambda_ext.on_shutdown(priority=99)  # after the routes have sent what they had
def account():
    """Say in the last line of the log what became of the records."""
    print(json.dumps({"routes": lambda_ext.stats().as_dict()["telemetry"]["routes"]}))
