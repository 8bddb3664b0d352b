"""What Lambda's Runtime and Extensions APIs answer, question by question.

The questions are those of tests/local/probe.py.  `GAPS` is where AWS's own
emulator says something else, and why.
"""

from __future__ import annotations

OK = (202, {"status": "OK"})
ABSENT = (404, "404 page not found\n")
NOT_ALLOWED = (405, "")
FUNCTION = {
    "functionName": "test_function",
    "functionVersion": "$LATEST",
    "handler": "app.handler",
}
REGISTERED = (200, FUNCTION)
CLOSED = (
    403,
    "Extension.RegistrationClosed",
    "Extension registration closed already",
)
UNTYPED = (
    403,
    "Extension.MissingHeader",
    "Lambda-Extension-Function-Error-Type not found",
)
NOT_JSON = (403, "InvalidRequestFormat", None)  # the parser's own words
NO_EVENTS = (
    403,
    "Extension.InvalidEventType",
    "No events allowed for internal extensions",
)
WRONG_ID = (400, "InvalidRequestID", "Invalid request ID")
INVOKE = {
    "eventType": "INVOKE",
    "deadlineMs": "<ms>",
    "requestId": "<id>",
    "invokedFunctionArn": "arn:aws:lambda:us-east-1:<account>:function:test_function",
    "tracing": {"type": "X-Amzn-Trace-Id", "value": "<trace>"},
}


def agent(state, wanted, words="State"):
    """Return how an extension's step from one state to another is refused."""
    return (
        403,
        "Extension.InvalidExtensionState",
        (
            f"State transition from {state} to {wanted} failed for extension <id>. "
            f"Error: {words} transition is not allowed"
        ),
    )


def runtime(state, wanted):
    """Return how a runtime's step from one state to another is refused."""
    return (
        403,
        "InvalidStateTransition",
        (
            f"State transition from {state} to {wanted} failed for runtime."
            " Error: State transition is not allowed"
        ),
    )


def invalid(place, rule, words):
    """Return the answer to a subscription that the schema refuses."""
    message = (
        f"schema validation error: jsonschema: '{place}' does not validate with"
        f" telemetry-subscription-schema.json#{rule}: {words}"
    )
    return 400, {"errorType": "ValidationError", "errorMessage": message}


def limit(rule, words):
    """Return the answer to a wrong limit."""
    name = rule.partition("/")[0]
    place = "/properties/buffering/properties/"
    return invalid(f"/buffering/{name}", place + rule, words)


# scenario -> question -> status and body, or status, error type and message
EXPECTED = {
    "classic": {
        "register without a name": (
            403,
            "Extension.InvalidExtensionName",
            "Empty extension name",
        ),
        "register an empty name": (
            403,
            "Extension.InvalidExtensionName",
            "Empty extension name",
        ),
        "register without a body": NOT_JSON,
        "register no JSON": NOT_JSON,
        "register a list": NOT_JSON,
        "register events of a wrong type": NOT_JSON,
        "register events of wrong types": NOT_JSON,
        "register configurationKeys": (
            403,
            "InvalidRequestFormat",
            "configurationKeys are deprecated; use environment variables instead",
        ),
        "register for ['SHUTDOWN']": (
            403,
            "Extension.InvalidEventType",
            "SHUTDOWN: ShutdownEventNotSupportedForInternalExtension",
        ),
        "register for ['INVOKE', 'SHUTDOWN']": (
            403,
            "Extension.InvalidEventType",
            "SHUTDOWN: ShutdownEventNotSupportedForInternalExtension",
        ),
        "register for ['FOO']": (
            403,
            "Extension.InvalidEventType",
            "FOO: ErrorInvalidEventType",
        ),
        "register for ['FOO', 'SHUTDOWN']": (
            403,
            "Extension.InvalidEventType",
            "FOO: ErrorInvalidEventType",
        ),
        "register silently": (200, {**FUNCTION, "accountId": "<account>"}),
        "register an odd name": REGISTERED,
        "register a name twice": (
            403,
            "Extension.InvalidExtensionState",
            "Extension with this name already registered",
        ),
        "register for null": REGISTERED,
        "register nothing": REGISTERED,
        "register number 5": REGISTERED,
        "register number 6": REGISTERED,
        "register number 7": REGISTERED,
        "register number 8": REGISTERED,
        "register number 9": REGISTERED,
        "register number 10": REGISTERED,
        "register number 11": (
            403,
            "Extension.TooManyExtensions",
            "Extension limit (10) reached",
        ),
        "register number 11, a name twice": (
            403,
            "Extension.TooManyExtensions",
            "Extension limit (10) reached",
        ),
        "register number 11, wrongly": (
            403,
            "Extension.InvalidEventType",
            "FOO: ErrorInvalidEventType",
        ),
        "event/next by an unknown caller": (
            403,
            "Extension.MissingExtensionIdentifier",
            "Missing Lambda-Extension-Identifier header",
        ),
        "event/next by odd": (
            403,
            "Extension.InvalidExtensionIdentifier",
            "Invalid Lambda-Extension-Identifier",
        ),
        "event/next by stranger": (
            403,
            "Extension.UnknownExtensionIdentifier",
            "Unknown extension <id>",
        ),
        "init/error by an unknown caller": (
            403,
            "Extension.MissingExtensionIdentifier",
            "Missing Lambda-Extension-Identifier header",
        ),
        "init/error by odd": (
            403,
            "Extension.InvalidExtensionIdentifier",
            "Invalid Lambda-Extension-Identifier",
        ),
        "init/error by stranger": UNTYPED,
        "exit/error by an unknown caller": (
            403,
            "Extension.MissingExtensionIdentifier",
            "Missing Lambda-Extension-Identifier header",
        ),
        "exit/error by odd": (
            403,
            "Extension.InvalidExtensionIdentifier",
            "Invalid Lambda-Extension-Identifier",
        ),
        "exit/error by stranger": UNTYPED,
        "init/error untyped": UNTYPED,
        "exit/error untyped": UNTYPED,
        "event/next twice, INVOKE": agent("Ready", "Ready"),
        "event/next twice, silent": agent("Ready", "Ready"),
        "event/next twice, null": agent("Ready", "Ready"),
        "event/next twice, failing": agent("Ready", "Ready"),
        "init/error when Ready": agent("Ready", "InitError"),
        "ping": (200, "pong"),
        "nothing": ABSENT,
        "nothing of the runtime": ABSENT,
        "nothing of extensions": ABSENT,
        "register by GET": NOT_ALLOWED,
        "next by POST": NOT_ALLOWED,
        "response by GET": NOT_ALLOWED,
        "telemetry": (202, "Telemetry.NotSupported", "Telemetry API is not supported"),
        "logs": (202, "Logs.NotSupported", "Logs API is not supported"),
        "restore/next": ABSENT,
        "restore/error": ABSENT,
        "credentials": ABSENT,
        "response too early": WRONG_ID,
        "error too early": WRONG_ID,
        "next": (200, {"n": 0}),
        "next again": (200, {"n": 0}),
        "INVOKE": (200, INVOKE),
        "register too late": CLOSED,
        "register wrongly and too late": NOT_JSON,
        "register a name twice and too late": CLOSED,
        "response to a stranger": WRONG_ID,
        "error to a stranger": WRONG_ID,
        "init/error when Running": runtime("Running", "InitError"),
        "response": OK,
        "response twice": runtime("RuntimeResponseSentState", "InvocationResponse"),
        "error after the response": runtime(
            "RuntimeResponseSentState", "InvocationErrorResponse"
        ),
        "next, the second": (200, {"n": 1}),
        "INVOKE, the second": (200, INVOKE),
        "response too large": (
            413,
            "RequestEntityTooLarge",
            "Exceeded maximum allowed payload size (6291556 bytes).",
        ),
        "response after one too large": runtime(
            "RuntimeResponseSentState", "InvocationResponse"
        ),
        "next, the third": (200, {"n": 2}),
        "INVOKE, the third": (200, INVOKE),
        "exit/error": OK,
        "exit/error twice": OK,
        "event/next after exit/error": agent("ExitError", "Ready"),
        "error": OK,
        "error twice": runtime("RuntimeResponseSentState", "InvocationErrorResponse"),
        "response after the error": runtime(
            "RuntimeResponseSentState", "InvocationResponse"
        ),
    },
    "odd_mode": {
        "next": (200, {"n": 0}),
        "response in an odd mode": (
            400,
            "InvalidFunctionResponseMode",
            "Invalid function response mode",
        ),
        "response": runtime("InvocationResponse", "InvocationResponse"),
        "error": runtime("InvocationResponse", "InvocationErrorResponse"),
        "init/error": runtime("InvocationResponse", "InitError"),
        "next again": runtime("InvocationResponse", "Ready"),
    },
    "streaming": {
        "next": (200, {"n": 0}),
        "response": OK,
    },
    "init_error": {
        "register silently": REGISTERED,
        "init/error of an extension": OK,
        "init/error of it twice": OK,
        "exit/error after init/error": agent("InitError", "Exited"),
        "event/next after init/error": agent("InitError", "Ready"),
        "init/error": OK,
        "init/error twice": runtime("InitError", "InitError"),
        "next after init/error": runtime("InitError", "Ready"),
    },
    "snap_start": {
        "credentials": (
            200,
            {
                "AccessKeyId": "testing",
                "SecretAccessKey": "testing",
                "Token": "testing",
                "Expiration": "2100-01-01T00:00:00Z",
            },
        ),
        "credentials without a token": (
            404,
            "cannot get credentials for the provided token\n",
        ),
        "credentials by an odd one": (
            404,
            "cannot get credentials for the provided token\n",
        ),
        "restore/error too early": runtime("Started", "RuntimeRestoreErrorState"),
        "restore/next": (200, ""),
        "register too late": CLOSED,
        "restore/next twice": runtime("Restoring", "Ready"),
        "response when Restoring": WRONG_ID,
        "restore/error": OK,
        "restore/error twice": runtime(
            "RuntimeRestoreErrorState", "RuntimeRestoreErrorState"
        ),
        "init/error after it": runtime("RuntimeRestoreErrorState", "InitError"),
        "next after it": runtime("RuntimeRestoreErrorState", "Ready"),
    },
    "restore_init_error": {
        "restore/next": (200, ""),
        "init/error": OK,
        "restore/error": runtime(
            "RuntimeRestoreErrorState", "RuntimeRestoreErrorState"
        ),
        "next after it": runtime("RuntimeRestoreErrorState", "Ready"),
    },
    "instances": {
        "register for INVOKE": NO_EVENTS,
        "register for SHUTDOWN": NO_EVENTS,
        "register for FOO": NO_EVENTS,
        "register silently": REGISTERED,
        "event/next twice": agent("Ready", "Ready", "state"),
        "restore/next": ABSENT,
        "nothing": ABSENT,
        "response too early": WRONG_ID,
        "next": (200, {"n": 0}),
        "register too late": CLOSED,
        "response to a stranger": WRONG_ID,
        "error to a stranger": WRONG_ID,
        "response": OK,
        "response twice": WRONG_ID,
        "next, the second": (200, {"n": 1}),
        "error": OK,
        "error twice": WRONG_ID,
    },
    "telemetry": {
        "register silently": REGISTERED,
        "by nobody": (
            403,
            "Extension.MissingExtensionIdentifier",
            "Missing Lambda-Extension-Identifier header",
        ),
        "by odd": (
            403,
            "Extension.InvalidExtensionIdentifier",
            "Invalid Lambda-Extension-Identifier",
        ),
        "by a stranger": (
            403,
            "Extension.UnknownExtensionIdentifier",
            "Unknown extension <id>",
        ),
        "no JSON": (400, "ValidationError", None),
        "a list": (400, "ValidationError", None),
        "nothing": invalid(
            "",
            "/required",
            "missing properties: 'schemaVersion', 'types', 'destination'",
        ),
        "an old schema": invalid(
            "/schemaVersion",
            "/properties/schemaVersion/enum",
            'value must be "2025-01-29"',
        ),
        "no types": invalid(
            "/types",
            "/properties/types/minItems",
            "minimum 1 items required, but found 0 items",
        ),
        "a wrong type": invalid(
            "/types/1",
            "/properties/types/items/enum",
            'value must be one of "platform", "function", "extension"',
        ),
        "types that are text": invalid(
            "/types", "/properties/types/type", "expected array, but got string"
        ),
        "too little maxItems": limit(
            "maxItems/minimum", "must be >= 1000 but found 999"
        ),
        "too much maxItems": limit(
            "maxItems/maximum", "must be <= 10000 but found 10001"
        ),
        "too little maxBytes": limit(
            "maxBytes/minimum", "must be >= 262144 but found 262143"
        ),
        "too much maxBytes": limit(
            "maxBytes/maximum", "must be <= 1048576 but found 1048577"
        ),
        "too little timeoutMs": limit(
            "timeoutMs/minimum", "must be >= 25 but found 24"
        ),
        "too much timeoutMs": limit(
            "timeoutMs/maximum", "must be <= 30000 but found 30001"
        ),
        "text as a limit": limit("maxItems/type", "expected integer, but got string"),
        "a list as buffering": invalid(
            "/buffering", "/properties/buffering/type", "expected object, but got array"
        ),
        "no destination": invalid("", "/required", "missing properties: 'destination'"),
        "another protocol": invalid(
            "/destination/protocol",
            "/properties/destination/oneOf/0/properties/protocol/enum",
            'value must be "HTTP"',
        ),
        "no URI": invalid(
            "/destination",
            "/properties/destination/oneOf/0/required",
            "missing properties: 'URI'",
        ),
        "another host": (
            400,
            {
                "errorType": "ValidationError",
                "errorMessage": "Invalid destination: destination.URI host must be"
                " sandbox.localdomain",
            },
        ),
        "rightly": (200, "OK"),
        "a second time": (500, "InternalServerError", "Internal Server Error"),
        "next": (200, {"n": 0}),
        "too late": (
            403,
            "Telemetry.SubscriptionClosed",
            "Telemetry API subscription is closed",
        ),
        "response": OK,
    },
}

# scenario, question, field: why AWS's own emulator answers differently there
GAPS = {
    (r"classic", r"register (without a body|no JSON|a list|events .*|wrongly and.*)",
     "body.errorMessage"): "Go words the faults of JSON differently",
    (r"classic", r"register silently", "body.accountId"): "it has no account",
    (r"classic|odd_mode|streaming", r"next(, the .*)?", "headers.lambda-runtime-trace-id"):
        "in classic mode it hands the trace to extensions only",
    (r"classic", r"next again", "headers.lambda-runtime-trace-id"): "the same",
    (r"telemetry", r"no JSON|a list", "body.errorMessage"):
        "Go words the faults of JSON differently",
    (r"telemetry", r"an old schema|a wrong type|another protocol", "body"):
        "its JSON is broken by the quotes that it quotes",
    (r"telemetry", r"too much maxBytes", "body.errorMessage"):
        "it writes large numbers with an exponent",
    (r"snap_start", r"credentials", "body"): "it has none to give",
    (r"snap_start|restore.*", r"restore/next", "body"):
        "it never restores: the first invocation takes its place",
    (r"snap_start|restore.*", r"restore/next", "headers"): "the same",
}  # fmt: skip
