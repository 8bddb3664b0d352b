"""The environment variables that Lambda sets for a runtime and its extensions."""

from __future__ import annotations

import importlib.util
import os
import secrets
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from .outcomes import EmulatorError

if TYPE_CHECKING:
    from collections.abc import Mapping

# What external extensions do not get:
# https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html
RUNTIME_ONLY = (
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_LAMBDA_LOG_FORMAT",
    "AWS_LAMBDA_LOG_LEVEL",
    "LAMBDA_TASK_ROOT",
    "LAMBDA_RUNTIME_DIR",
    "_HANDLER",
)


# What this shell says about its AWS account, its Lambda, its language and its
# Python, which is not so in Lambda; where to find modules is the user's to say.
FOREIGN = (
    "AWS_", "_LAMBDA_", "_X_AMZN_", "LAMBDA_TASK_", "LAMBDA_RUNTIME_", "LC_", "PYTHON",
)  # fmt: skip
FOREIGN_NAMES = ("_HANDLER", "LANG", "LANGUAGE", "TZ")
OURS = ("PYTHONPATH", "PYTHONHOME")


def inherited() -> dict[str, str]:
    """Return this process's variables, without those that Lambda would not have."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in OURS or not (name.startswith(FOREIGN) or name in FOREIGN_NAMES)
    }


def lambdas_own(
    *,
    handler: str,
    task_root: str,
    execution_env: str | None,
    function_name: str,
    memory_mb: int,
    region: str,
    init_type: str,
    max_concurrency: int | None,
    api: str,
) -> dict[str, str]:
    """Return the variables that Lambda adds."""
    variables = {
        "AWS_LAMBDA_RUNTIME_API": api,
        "_HANDLER": handler,
        "LAMBDA_TASK_ROOT": task_root,
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "AWS_LAMBDA_FUNCTION_NAME": function_name,
        "AWS_LAMBDA_FUNCTION_VERSION": version(init_type),
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory_mb),
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/" + function_name,
        "AWS_LAMBDA_LOG_STREAM_NAME": log_stream(init_type),
        "AWS_LAMBDA_INITIALIZATION_TYPE": init_type,
        "AWS_LAMBDA_METADATA_API": api,
        "AWS_LAMBDA_METADATA_TOKEN": secrets.token_urlsafe(),
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
    }
    if init_type == "snap-start":  # no credentials in the snapshot
        variables["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = (
            f"http://{api}/2021-04-23/credentials"
        )
        variables["AWS_CONTAINER_AUTHORIZATION_TOKEN"] = secrets.token_urlsafe()
    else:
        variables["AWS_ACCESS_KEY_ID"] = "testing"
        variables["AWS_SECRET_ACCESS_KEY"] = "testing"
        variables["AWS_SESSION_TOKEN"] = "testing"
    if execution_env is not None:
        variables["AWS_EXECUTION_ENV"] = execution_env
    if max_concurrency is not None:
        variables["AWS_LAMBDA_MAX_CONCURRENCY"] = str(max_concurrency)
        variables["AWS_LAMBDA_LOG_FORMAT"] = "JSON"
    return variables


def log_stream(init_type: str) -> str:
    """Return a name that no other environment has, of Lambda's form: it is an identity."""
    today = time.strftime("%Y/%m/%d", time.gmtime())
    return f"{today}/[{version(init_type)}]{secrets.token_hex(16)}"


def version(init_type: str) -> str:
    """Return the function's version; only published ones have snapshots."""
    return "1" if init_type == "snap-start" else "$LATEST"


def apply(
    base: dict[str, str], changes: Mapping[str, str | None] | None
) -> dict[str, str]:
    """Return *base* with *changes*; None takes a variable away."""
    merged: dict[str, str | None] = {**base, **(changes or {})}
    return {name: value for name, value in merged.items() if value is not None}


def execution_env_of(python: str) -> str:
    """Return the AWS_EXECUTION_ENV of the managed runtime with that Python."""
    if python == sys.executable:
        major, minor = sys.version_info[:2]
        return f"AWS_Lambda_python{major}.{minor}"
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return "AWS_Lambda_python" + _ask(python, code)


def has_runtime_client(python: str) -> bool:
    """Return whether awslambdaric is installed for that Python."""
    if python == sys.executable:
        return importlib.util.find_spec("awslambdaric") is not None
    code = "import importlib.util as u; print(u.find_spec('awslambdaric') is not None)"
    return _ask(python, code) == "True"


def _ask(python: str, code: str) -> str:
    try:
        result = subprocess.run(  # noqa: S603  the Python that the user named
            [python, "-c", code], capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError) as exc:
        raise EmulatorError(f"{python} is no Python that runs: {exc}") from exc
    return result.stdout.strip()
