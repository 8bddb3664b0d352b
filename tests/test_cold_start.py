"""What is loaded when: the promise that a cold start pays for nothing else.

The sets are pinned, not the milliseconds; those are in benchmarks/.
"""

from __future__ import annotations

import json

import pytest
from helpers import ROOT, amount_of_code, python

from lambda_ext.local.emulator import Emulator

FORBIDDEN = (
    "asyncio",
    "boto3",
    "botocore",
    "cachetools",
    "concurrent.futures",
    "dataclasses",
    "email",
    "http.client",
    "importlib.metadata",
    "inspect",
    "ssl",
    "typing",
    "urllib",
    "wrapt",
)

TELEMETRY = (
    "from lambda_ext import telemetry;"
    " telemetry.on_batch(print); telemetry.subscribe(function=True)"
)

THREE = """
from lambda_ext import get_secret, handler, metrics
handler(print)
metrics.count("n")
"""

# Everything that the runtime client has loaded when it imports a handler, in
# every version that is supported, and that we may therefore use for nothing.
RUNTIME_CLIENT = """
import sys, awslambdaric.bootstrap
"""

PROGRAM = """
import json, sys, threading, signal_before
{prepare}
before = set(sys.modules)
{body}
loaded = sorted(set(sys.modules) - before)
print(json.dumps(loaded))
"""


def loaded_by(body, prepare="import awslambdaric.bootstrap", env=None):
    """Return the modules that *body* adds to those of the runtime client."""
    program = PROGRAM.replace(", signal_before", "").format(prepare=prepare, body=body)
    run = python(program, env=env)
    assert 0 == run.returncode, run.stderr
    (line,) = [line for line in run.stdout.splitlines() if line[:1] == "["]
    return json.loads(line)  # metrics may come, too


def test_import_loads_only_itself():
    """`import lambda_ext` adds exactly one module to the runtime client's."""
    assert ["lambda_ext"] == loaded_by("import lambda_ext")


def test_import_loads_only_itself_in_a_bare_interpreter():
    """Without the runtime client it is one module, too."""
    assert ["lambda_ext"] == loaded_by("import lambda_ext", prepare="")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            "import lambda_ext; lambda_ext.handler(print)",
            [
                "lambda_ext",
                "lambda_ext.config",
                "lambda_ext.disclosure",
                "lambda_ext.exceptions",
                "lambda_ext.invocation",
                "lambda_ext.lifecycle",
                "lambda_ext.lifecycle.clock",
                "lambda_ext.lifecycle.current",
                "lambda_ext.lifecycle.phases",
                "lambda_ext.lifecycle.process",
                "lambda_ext.lifecycle.real_threads",
                "lambda_ext.lifecycle.runtime_client",
                "lambda_ext.lifecycle.shutdown",
                "lambda_ext.lifecycle.signals",
            ],
        ),
        (
            "from lambda_ext import metrics; metrics.count('n', unit='Count')",
            [
                "lambda_ext",
                "lambda_ext.config",
                "lambda_ext.disclosure",
                "lambda_ext.exceptions",
                "lambda_ext.lifecycle",
                "lambda_ext.lifecycle.clock",
                "lambda_ext.lifecycle.phases",
                "lambda_ext.lifecycle.process",
                "lambda_ext.lifecycle.real_threads",
                "lambda_ext.lifecycle.runtime_client",
                "lambda_ext.lifecycle.shutdown",  # for the flush at exit; a
                "lambda_ext.lifecycle.signals",  # handler has loaded both
                "lambda_ext.limits",
                "lambda_ext.metrics",
                "lambda_ext.metrics.buffer",
                "lambda_ext.metrics.emf",
                "lambda_ext.metrics.losses",
                "lambda_ext.metrics.recorder",
                "lambda_ext.metrics.stdout",
                "lambda_ext.metrics.validation",
            ],
        ),
        (
            "from lambda_ext import Secret; Secret('prod/db')",
            [
                "lambda_ext",
                "lambda_ext.config",
                "lambda_ext.disclosure",
                "lambda_ext.exceptions",
                "lambda_ext.lifecycle",
                "lambda_ext.lifecycle.clock",
                "lambda_ext.lifecycle.phases",
                "lambda_ext.lifecycle.process",
                "lambda_ext.lifecycle.real_threads",
                "lambda_ext.values",
                "lambda_ext.values.cache",
                "lambda_ext.values.calls",
                "lambda_ext.values.handles",
                "lambda_ext.values.keys",
                "lambda_ext.values.settings",
                "lambda_ext.values.store",
                "lambda_ext.values.transforms",
            ],
        ),
    ],
    ids=["handler", "metrics", "secret"],
)
def test_first_use_loads_a_pinned_set(body, expected):
    """Each way in loads the modules of its own story and no library."""
    loaded = [name for name in loaded_by(body) if name.split(".")[0] == "lambda_ext"]

    assert expected == loaded


def test_handler_in_lambda_loads_the_extension_besides():
    """Registering needs two modules and a socket; SnapStart has one of ours more."""
    outside = loaded_by("import lambda_ext; lambda_ext.handler(print)")
    inside = {"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9"}  # where nothing listens
    started = {**inside, "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start"}
    more = [
        set(loaded_by("import lambda_ext; lambda_ext.handler(print)", env=env))
        - set(outside)
        for env in (inside, started)
    ]
    registering = {
        "_socket",
        "lambda_ext.lifecycle.extension",
        "lambda_ext.lifecycle.runtime_api",
    }

    assert registering == more[0]
    assert registering | {"lambda_ext.lifecycle.snapstart"} == {
        name for name in more[1] if name.startswith("lambda_ext.") or name in more[0]
    }


FIRST_INVOCATION = """
import sys
import lambda_ext
{imports}

@lambda_ext.handler
def counted(event, context):
    {body}

known = set(sys.modules)

def handler(event, context):
    before = set(sys.modules)
    counted(event, context)
    after = set(sys.modules)
    return [[name for name in sorted(found) if name.startswith("lambda_ext")]
            for found in (before - known, after - before)]
"""


@pytest.mark.process
@pytest.mark.parametrize(
    ("imports", "body", "ahead"),
    [
        ("", "pass", []),
        (
            "from lambda_ext import metrics",
            "metrics.count('n')",
            ["lifecycle.deadline"],
        ),
        (
            "from lambda_ext import get_secret",
            "pass",
            ["answer", "values.calls", "values.loader"],
        ),
    ],
    ids=["nothing", "metrics", "values"],
)
def test_end_of_init_loads_what_the_first_invocation_needs(
    tmp_path, imports, body, ahead
):
    """INIT has more CPU than it; what the program has not imported stays unloaded."""
    program = FIRST_INVOCATION.format(imports=imports, body=body)
    (tmp_path / "app.py").write_text(program)
    with Emulator("app.handler", str(tmp_path), env={"PYTHONPATH": ROOT}) as emulator:
        before, during = json.loads(emulator.invoke({}).payload)

    assert ([f"lambda_ext.{name}" for name in ahead], []) == (before, during)


def test_routes_load_no_metrics():
    """A program that routes log records, and records no metric, pays for none."""
    loaded = loaded_by("import lambda_ext; lambda_ext.telemetry.route().to(print)")

    assert "lambda_ext.telemetry.shipping" in loaded
    assert [] == [name for name in loaded if name.startswith("lambda_ext.metrics")]


def test_telemetry_loads_a_pinned_set():
    """Outside Lambda no listener; in Lambda that one module, and no `socket`."""
    before = loaded_by("import lambda_ext; lambda_ext.handler(print)")
    loaded = set(
        loaded_by(f"import lambda_ext; lambda_ext.handler(print); {TELEMETRY}")
    )
    listening = set(loaded_by(f"{TELEMETRY}; import lambda_ext.telemetry.listener"))

    assert [
        "lambda_ext.callables",
        "lambda_ext.lifecycle.extension",
        "lambda_ext.lifecycle.invocations",
        "lambda_ext.lifecycle.runtime_api",
        "lambda_ext.telemetry",
        "lambda_ext.telemetry.dispatch",
        "lambda_ext.telemetry.records",
        "lambda_ext.telemetry.reports",
        "lambda_ext.telemetry.subscription",
    ] == sorted(loaded - set(before))
    assert ["_socket", "lambda_ext.telemetry.listener"] == sorted(listening - loaded)


def test_without_telemetry_there_is_none_of_it():
    """No module and no thread: not by a handler, a flush or the statistics."""
    run = python(
        """
import _thread, sys
import lambda_ext
from lambda_ext import metrics

@lambda_ext.handler
def handler(event, context):
    metrics.count("n")

handler({}, None)
lambda_ext.stats().telemetry
print([name for name in sys.modules if "telemetry" in name], _thread._count())
"""
    )

    assert "[] 0" == run.stdout.splitlines()[-1]


# As the runtime client does before it waits, see `TestLoaded`.
ANSWER = "phases.call(phases.INVOKE); recorder._load_rest()"


@pytest.mark.parametrize(
    ("before", "recorded"),
    [
        ("", "metrics.count('n')"),
        (ANSWER, "[metrics.count(f'n{number}') for number in range(300)]"),
        (ANSWER, "[metrics.distribution('d', number) for number in range(300)]"),
        (ANSWER, "metrics.scope(timestamp=time.time()).count('n')"),
        (f"{ANSWER}; metrics.annotate({{'order': '7'}})", "metrics.count('n')"),
        (f"lambda_ext.configure(sinks=['emf', Own()]); {ANSWER}", "metrics.count('n')"),
        (f"lambda_ext.configure(flush_every='5s'); {ANSWER}", "metrics.count('n')"),
    ],
    ids=[
        "usual",
        *("many names after an answer", "values", "timestamp", "properties"),
        *("sinks", "age"),
    ],
)
def test_last_flush_imports_nothing(before, recorded):
    """At SIGTERM and exit: what it needs is there, or came after the first answer."""
    run = python(
        f"""
import sys, time
import lambda_ext
from lambda_ext import metrics
from lambda_ext.lifecycle import phases
from lambda_ext.metrics import recorder

class Own:
    def accept(self, batch):
        pass

{before}
metrics.count("first")
{recorded}
before = set(sys.modules)
phases.call_within(5.0, phases.SHUTDOWN)
print([name for name in set(sys.modules) - before if "lambda_ext" in name])
"""
    )

    *lines, loaded = run.stdout.splitlines()
    assert ("[]", "") == (loaded, run.stderr)
    assert any('"first"' in line for line in lines)


@pytest.mark.parametrize(
    ("body", "most"),
    [
        ("import lambda_ext", 400),
        ("import lambda_ext; lambda_ext.handler(print)", 13_500),
        ("from lambda_ext import metrics; metrics.count('n')", 28_000),
        ("from lambda_ext import Secret; Secret('prod/db')", 27_500),
        (THREE, 47_000),
    ],
    ids=["import", "handler", "metrics", "secret", "all three"],
)
def test_first_use_loads_so_much_code_at_most(body, most):
    """What is loaded is bounded by its amount, too, since modules may grow."""
    loaded = [name for name in loaded_by(body) if name.split(".")[0] == "lambda_ext"]

    assert most > amount_of_code(loaded)


@pytest.mark.parametrize(
    "body",
    [
        "import lambda_ext",
        "import lambda_ext; lambda_ext.handler(print)",
        "from lambda_ext import metrics; metrics.count('n'); metrics.flush()",
        "from lambda_ext import Secret, get_secret; Secret('prod/db')",
        "from lambda_ext import configure; configure(max_age=60)",
        TELEMETRY,
        f"{TELEMETRY}; import lambda_ext.telemetry.listener",
        "from lambda_ext import telemetry; telemetry.route(where='function').to(print)",
        (
            "from lambda_ext.telemetry import destinations;"
            " destinations.http('https://x.example'); destinations.spans()"
        ),
    ],
)
def test_forbidden_modules_stay_unloaded(body):
    """No way in loads a module that costs milliseconds."""
    loaded = loaded_by(body)

    assert [] == [name for name in FORBIDDEN if name in loaded]


@pytest.mark.parametrize(
    ("body", "unused"),
    [
        (
            "from lambda_ext import telemetry; telemetry.subscribe()",
            ("routes", "shipping", "redaction", "destinations", "queued"),
        ),
        (
            "from lambda_ext import telemetry; telemetry.route().to(print)",
            ("destinations", "over_http", "otlp_logs", "platform_metrics"),
        ),
        (
            (
                "from lambda_ext.telemetry import destinations;"
                " destinations.http('https://x.example')"
            ),
            ("otlp_logs", "otlp_spans", "firehose", "platform_metrics", "splunk_hec"),
        ),
    ],
    ids=["subscribe", "route", "destination"],
)
def test_telemetry_loads_what_is_used(body, unused):
    """A subscription needs no routes, a route no network, a destination no other."""
    loaded = loaded_by(body)

    assert [] == [name for name in loaded if name.rpartition("telemetry.")[2] in unused]


def test_import_has_no_effect():
    """Importing starts no thread, handles no signal and asks for no variable."""
    run = python(
        """
import _thread, os, signal, socket, sys

class Watched(dict):
    asked = []
    def __getitem__(self, key):
        Watched.asked.append(key)
        return dict.__getitem__(self, key)
    def get(self, key, default=None):
        Watched.asked.append(key)
        return dict.get(self, key, default)
    def __contains__(self, key):
        Watched.asked.append(key)
        return dict.__contains__(self, key)

handlers = {n: signal.getsignal(n) for n in signal.valid_signals()}
real = os.environ
import importlib, pkgutil
os.environ = Watched(real)
socket.socket.connect = lambda *a: sys.exit("network at import")
import lambda_ext
for name in lambda_ext.__all__:
    getattr(lambda_ext, name)
asked = [n for n in Watched.asked if n.startswith(("AWS", "LAMBDA", "POWER"))]
os.environ = real
assert asked == [], asked
assert _thread._count() == 0
assert handlers == {n: signal.getsignal(n) for n in signal.valid_signals()}
assert signal.set_wakeup_fd(-1) == -1
"""
    )

    assert (0, "") == (run.returncode, run.stderr)
