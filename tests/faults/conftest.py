"""What several tests of real processes need."""

from __future__ import annotations

import sys
import textwrap

import pytest
from helpers import PATIENT, ROOT

from lambda_ext.local.emulator import Budgets, Emulator


@pytest.fixture
def environment(tmp_path):
    """Return a function that makes an emulated environment of a program."""
    made = []

    def make(program, **options):
        (tmp_path / "app.py").write_text(
            PATIENT
            + "import os, sys, time\nimport lambda_ext\nfrom lambda_ext import metrics\n"
            + textwrap.dedent(program)
        )
        emulator = Emulator(
            task_root=str(tmp_path),
            command=(sys.executable, "-m", "awslambdaric", "app.handler"),
            env={"PYTHONPATH": ROOT, **options.pop("env", {})},
            budgets=Budgets(internal_s=30.0),
            **options,
        )
        made.append(emulator)
        return emulator

    yield make
    for emulator in made:
        emulator.close()
