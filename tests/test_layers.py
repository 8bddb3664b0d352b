"""The import rows, as data, and the one home of each third-party library.

Imports inside functions and under TYPE_CHECKING count.  Also a program:
``python tests/test_layers.py`` prints what is wrong and exits with 1.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PACKAGE = "lambda_ext"

# Highest first.  A name ending in ".*" stands for everything below it.
ROWS = {
    6: ("", "__main__", "cli", "commands.*", "contracts"),
    5: ("testing", "openfeature"),
    4: (
        "dropin",
        "dropin.botocore_errors",
        "dropin.client_source",
        "dropin.dates",
        "dropin.light_batches",
        "dropin.light_client",
        "dropin.mixin",
        "dropin.operations",
        "dropin.patching",
        "flags.configuration",
        "flags.flags",
        "injection",
        "invocation",
        "statistics",
        "telemetry",
        "telemetry.datadog_logs",
        "telemetry.destinations",
        "telemetry.entry",
        "telemetry.firehose",
        "telemetry.otlp_logs",
        "telemetry.otlp_spans",
        "telemetry.over_http",
        "telemetry.platform_metrics",
        "telemetry.predicates",
        "telemetry.queued",
        "telemetry.redaction",
        "telemetry.routes",
        "telemetry.shipping",
        "telemetry.splunk_hec",
    ),
    3: (
        "values",
        "values.batches",
        "values.derived",
        "values.getters",
        "values.handles",
        "values.rotation",
        "values.settings",
        "values.store",
        "metrics",
        "metrics.properties",
        "metrics.datadog",
        "metrics.otlp",
        "metrics.outlets",
        "metrics.correlation",
        "metrics.recorder",
        "metrics.runtime",
        "metrics.self_metrics",
        "telemetry.reports",
        "telemetry.subscription",
    ),
    2: (
        "values.sources.*",
        "flags.session",
        "flags.agent",
        "flags.folder",
        "delivery.otlp_common",
        "delivery.life",
        "delivery.queue",
        "delivery.receiver",
        "metrics.aged",
        "metrics.emf",
        "metrics.otlp_messages",
        "telemetry.listener",
    ),
    1: (
        "dropin.tallies",
        "values.aliases",
        "values.declared",
        "values.keys",
        "values.cache",
        "values.counters",
        "values.calls",
        "values.given",
        "values.loader",
        "values.transforms",
        "flags",
        "flags.dialect",
        "flags.document",
        "flags.patterns",
        "flags.rules",
        "delivery",
        "delivery.protobuf",
        "metrics.buffer",
        "metrics.durable",
        "metrics.emf_batches",
        "metrics.statuses",
        "metrics.losses",
        "metrics.parcels",
        "metrics.stdout",
        "metrics.tally",
        "metrics.timers",
        "metrics.validation",
        "aws.*",
        "telemetry.dispatch",
        "telemetry.records",
        "lifecycle.bounded",
        "lifecycle.current",
        "lifecycle.deferred",
        "lifecycle.event_loop",
        "lifecycle.extension",
        "lifecycle.hooks",
        "lifecycle.invocations",
        "lifecycle.runtime_api",
        "lifecycle.runtime_client",
        "lifecycle.signals",
        "lifecycle.shutdown",
        "lifecycle.deadline",
        "lifecycle.otel",
        "lifecycle.snapstart",
        "lifecycle.undecorated",
    ),
    0: (
        "answer",
        "disclosure",
        "exceptions",
        "flag_errors",
        "typing",
        "callables",
        "config",
        "limits",
        "options",
        "lifecycle",
        "lifecycle.clock",
        "lifecycle.phases",
        "lifecycle.process",
        "lifecycle.real_threads",
        "parsers",
        "sink_numbers",
        "tracebacks",
    ),
}

# The emulator imports nothing of the library: a server that shares code with
# its client proves nothing.  Only the command that runs it imports the emulator.
ISLAND = "local"
ISLAND_VISITORS = ("commands.run_command",)
ISLAND_SHARES = ("limits",)  # AWS's numbers: data, no code

# A facade shows names of these to type checkers, and looks them up when they are
# first used; such an edge is no step of a cycle.  The package itself is one, too.
SHOWN = {"exceptions": ("flag_errors",)}

HOMES = {  # third-party library -> the places that may import it
    "boto3": ("aws.boto", "dropin."),
    "botocore": ("aws.boto", "dropin.botocore_errors"),
    "wrapt": ("dropin.",),
    "cachetools": ("values.",),
    "openfeature": ("openfeature",),
    "re2": ("flags.patterns",),
    "rich": ("local.",),
    "moto": ("local.",),
    "snapshot_restore_py": ("lifecycle.snapstart",),
}


def modules():
    """Yield (module name below the package, path) of every source file."""
    top = os.path.join(ROOT, PACKAGE)
    for folder, folders, files in os.walk(top):
        folders.sort()
        for file in sorted(files):
            if file.endswith(".py"):
                path = os.path.join(folder, file)
                name = os.path.relpath(path, top)[: -len(".py")].replace(os.sep, ".")
                yield name.removesuffix("__init__").removesuffix("."), path


def row_of(name):
    """Return the row of a module, None if the table does not know it."""
    for row, names in ROWS.items():
        for known in names:
            package = known[: -len(".*")] if known.endswith(".*") else None
            if name == known or (
                package is not None
                and (name == package or name.startswith(package + "."))
            ):
                return row
    return None


def imported(name, path, known):
    """Yield what the module imports: ("own" | "other", module, line)."""
    with open(path, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    is_package = path.endswith("__init__.py")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                own, _, rest = alias.name.partition(".")
                if own == PACKAGE:
                    yield "own", rest, node.lineno
                else:
                    yield "other", alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                parts = name.split(".") if name else []
                up = node.level - (1 if is_package else 0)
                base = parts[: len(parts) - up] if up else parts
                target = ".".join([*base, *((node.module or "").split("."))]).strip(".")
            elif node.module == PACKAGE or node.module.startswith(PACKAGE + "."):
                target = node.module[len(PACKAGE) + 1 :]
            else:
                yield "other", node.module, node.lineno
                continue
            for alias in node.names:
                inner = f"{target}.{alias.name}".strip(".")
                yield "own", inner if inner in known else target, node.lineno


def problems():
    """Return a line for each import that points up or lives elsewhere."""
    found = []
    sources = dict(modules())
    for name, path in sources.items():
        label = f"{PACKAGE}.{name}".rstrip(".")
        in_island = name == ISLAND or name.startswith(ISLAND + ".")
        row = row_of(name)
        if row is None and not in_island:
            found.append(f"{label}: stands in no row of tests/test_layers.py")
            continue
        for kind, target, line in imported(name, path, sources):
            where = f"{label}:{line}"
            if kind == "other":
                homes = HOMES.get(target.split(".")[0])
                if homes and not any(
                    name == home or (home.endswith(".") and name.startswith(home))
                    for home in homes
                ):
                    found.append(f"{where}: {target} is imported in {homes} only")
                continue
            to_island = target == ISLAND or target.startswith(ISLAND + ".")
            if in_island or to_island:
                allowed = name in ISLAND_VISITORS or target in ISLAND_SHARES
                if in_island != to_island and not allowed:
                    found.append(f"{where}: imports {target!r} across the island")
                continue
            target_row = row_of(target)
            if target_row is None:
                found.append(f"{where}: {target!r} stands in no row")
            elif target_row > row:
                found.append(
                    f"{where}: row {row} imports {target!r} of row {target_row}"
                )
            elif (
                target_row == row
                and row not in (0, 6)
                and name.split(".")[0] != target.split(".")[0]
            ):
                found.append(f"{where}: {target!r} is in the same row, another room")
    found += cycles(sources)
    return found


def cycles(sources):
    """Return a line for each module that imports itself over others."""
    graph = {
        name: {
            target
            for kind, target, _ in imported(name, path, sources)
            if kind == "own"
            and target in sources
            and name != ""
            and target not in SHOWN.get(name, ())
        }
        for name, path in sources.items()
    }
    found = []
    for start, targets in graph.items():
        seen, todo = set(), list(targets)
        while todo:
            name = todo.pop()
            if name == start:
                found.append(f"{PACKAGE}.{start}: is part of an import cycle")
                break
            if name not in seen:
                seen.add(name)
                todo.extend(graph.get(name, ()))
    return found


def test_imports_point_down():
    """Every import goes to a lower row, or stays in its room without a cycle."""
    assert [] == problems()


def test_rows_name_modules_that_exist():
    """A row of a module that is gone, or not there yet, says nothing."""
    known = {name for name, _ in modules()}
    rows = {name.removesuffix(".*") for names in ROWS.values() for name in names}

    assert set() == rows - known


def test_no_two_files_share_a_basename():
    """The name of a file says which one it is."""
    names = [os.path.basename(path) for _, path in modules()]
    twice = {name for name in names if names.count(name) > 1} - {"__init__.py"}

    assert twice == set()


def test_a_wrong_import_is_found(tmp_path, monkeypatch):
    """The check sees an import that points up, also inside a function."""
    package = tmp_path / PACKAGE
    (package / "values").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "values" / "cache.py").write_text(
        "def f():\n    from . import handles\n    import boto3\n"
    )
    (package / "values" / "handles.py").write_text("from . import cache\n")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", str(tmp_path))

    found = "\n".join(problems())

    assert "row 1 imports 'values.handles' of row 3" in found
    assert "boto3 is imported in" in found
    assert "import cycle" in found


def test_as_a_command_it_is_silent_and_ends_with_0():
    """`make lint` goes on where there is nothing to say."""
    done = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, check=False
    )

    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


if __name__ == "__main__":
    sys.exit("\n".join(problems()) or 0)
