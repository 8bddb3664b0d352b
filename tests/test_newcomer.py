"""From the README alone to a handler that runs, in an empty environment.

It builds the wheel and installs it with its dependencies from the package
index that pip is configured for; where there is none, it is skipped.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from helpers import ROOT

pytestmark = [pytest.mark.process, pytest.mark.timeout(900)]

with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as _file:
    README = _file.read()

UNREACHABLE = re.compile(
    r"NewConnectionError|ConnectTimeout|Temporary failure in name|Network is unreachable"
    r"|Connection refused|No route to host"
)


def commands(block):
    """Return the commands of a console block of the README, without comments."""
    return [
        line.removeprefix("$ ").partition("  #")[0].strip()
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


BLOCKS = re.findall(r"```console\n(.*?)```", README, re.S)
FIRST = commands(BLOCKS[0])
INSTALL, *STEPS = FIRST
PACKAGE = commands(next(block for block in BLOCKS if "--no-deps" in block))


class Shell:
    """Runs commands where only the new environment's programs are found first."""

    def __init__(self, folder):
        self.folder = folder
        self.bin = os.path.join(folder, "env", "bin")
        self.shop = os.path.join(folder, "shop")

    def run(self, command, cwd=None):
        """Run *command* in a shell, as a person would."""
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "AWS_", "PYTEST", "COV_", "LAMBDA_"))
        }
        environment["PATH"] = self.bin + os.pathsep + os.environ["PATH"]
        return subprocess.run(
            ["bash", "-c", command],
            cwd=cwd or self.shop,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def install(self, command, cwd=None):
        """Run a pip command; skip where no index is within reach."""
        done = self.run(command, cwd)
        if done.returncode and UNREACHABLE.search(done.stdout + done.stderr):
            pytest.skip("no package index within reach")
        assert 0 == done.returncode, done.stdout + done.stderr
        return done


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """An empty environment, in which the first command of the README was run."""
    shell = Shell(str(tmp_path_factory.mktemp("newcomer")))
    os.mkdir(shell.shop)
    subprocess.run(
        [sys.executable, "-m", "venv", os.path.join(shell.folder, "env")], check=True
    )
    shell.install(f"pip wheel -q --no-deps -w wheels '{ROOT}'", cwd=shell.folder)
    (shell.wheel,) = glob.glob(os.path.join(shell.folder, "wheels", "*.whl"))
    assert INSTALL.startswith('pip install "lambda-ext[local]"')
    shell.install(INSTALL.replace("lambda-ext[local]", shell.wheel + "[local]"))
    return shell


@pytest.fixture(scope="module")
def written(shell):
    """The folder in which `init` has written, beside that of the other commands."""
    folder = os.path.join(shell.folder, "typed")
    done = shell.run(f"lambda-ext init {folder}")
    assert 0 == done.returncode, done.stderr
    return folder


def test_each_command_of_the_readme_ends_well(shell):
    """init, run and pytest, as they stand in the README: all green."""
    done = [(command, shell.run(command)) for command in STEPS]

    assert ["lambda-ext init", "lambda-ext run", "python -m pytest"] == [
        " ".join(command.split()[: 3 if "pytest" in command else 2])
        for command in STEPS
    ]
    for command, result in done:
        assert 0 == result.returncode, (command, result.stdout, result.stderr)
    assert done[0][1].stdout.splitlines()[-2:] == STEPS[1:]
    assert "good" == done[1][1].stdout.split()[-1]
    assert "1 passed" in done[2][1].stdout


def test_what_was_installed_is_the_wheel(shell):
    """The package comes from the wheel, typed, with its data, and no more than it needs."""
    code = "import lambda_ext, os; print(os.path.dirname(lambda_ext.__file__))"
    place = shell.run(f'python -c "{code}"').stdout.strip()
    listed = shell.run("pip list --format freeze").stdout.lower()

    assert place.startswith(os.path.join(shell.folder, "env"))
    assert os.path.exists(os.path.join(place, "py.typed"))
    assert 5 == len(os.listdir(os.path.join(place, "aws", "roots")))
    assert [] == re.findall(
        r"^(cfn-lint|docker|sympy|graphql-core|openapi-spec-validator)==", listed, re.M
    )


def test_what_init_wrote_is_strictly_typed(shell, written):
    """mypy --strict has nothing to say, in an environment of its own."""
    shell.install("pip install -q mypy")
    done = shell.run("mypy --strict .", cwd=written)

    assert (0, True) == (done.returncode, "no issues found" in done.stdout), done.stdout


def test_what_init_wrote_is_strictly_typed_for_pyright(shell, written):
    """Neither has pyright in its strict mode: here as basedpyright, which pip has whole."""
    shell.install("pip install -q basedpyright")
    with open(os.path.join(shell.folder, "strict.json"), "w", encoding="utf-8") as file:
        json.dump({"typeCheckingMode": "strict", "include": [written]}, file)
    done = shell.run("basedpyright --project ../strict.json")

    assert (0, True) == (done.returncode, "0 errors, 0 warnings" in done.stdout), (
        done.stdout + done.stderr
    )


def test_package_for_lambda_is_small_and_complete(shell):
    """What the README packs is some 3 MB, and runs with the runtime's own boto3."""
    install = PACKAGE[0]
    assert " lambda-ext " in install
    folder = os.path.join(shell.folder, "packing")
    written = shell.run(f"lambda-ext init {folder}")
    assert 0 == written.returncode, written.stderr
    shell.install(install.replace(" lambda-ext ", f" '{shell.wheel}' "), cwd=folder)
    size = sum(
        os.path.getsize(os.path.join(place, file))
        for place, _, files in os.walk(os.path.join(folder, "package"))
        for file in files
        if "__pycache__" not in place
    )
    # All of the second command, where there is a zip to be had.
    packed = PACKAGE[1] if shutil.which("zip") else PACKAGE[1].partition("&&")[0]
    copied = shell.run(packed, cwd=folder)
    done = shell.run(
        "lambda-ext run app.handler --task-root package"
        " --event event.json --seed seed.json",
        cwd=folder,
    )

    assert 0 == copied.returncode, copied.stderr
    assert 0 == done.returncode, done.stdout
    packages = os.listdir(os.path.join(folder, "package"))
    assert {"lambda_ext", "cachetools", "wrapt"} <= {*packages}
    assert not {"boto3", "botocore", "moto"} & {*packages}
    assert size < 4_000_000
