"""What a flag loads, and what it does not."""

from __future__ import annotations

import json

import pytest
from helpers import python

CODE = """
import json, sys
import lambda_ext
flags = lambda_ext.Flags("a", "b", "c")
declared = set(sys.modules)
lambda_ext.configure(flags_source="file:" + {path!r})
flags.enabled("on")
print(json.dumps([sorted(declared), sorted(sys.modules)]))
"""
HEAVY = ("boto3", "botocore", "difflib", "asyncio", "ssl", "http.client", "re2",
         "openfeature", "cachetools", "urllib.request")  # fmt: skip
RULES = "lambda_ext.flags.rules"


@pytest.mark.parametrize(
    ("flag", "needs_rules"),
    [
        ({"enabled": True, "limit": 5}, False),
        ({"_variants": [{"name": "all", "enabled": True}]}, False),
        (
            {"_variants": [{"name": "a", "enabled": True, "rule": "(eq $a 1)"},
                           {"name": "b", "enabled": True}]},
            True,
        ),
    ],
)  # fmt: skip
def test_only_rules_load_their_language(tmp_path, flag, needs_rules):
    """A first flag loads nothing heavy, and the rule language for rules only."""
    path = tmp_path / "flags.json"
    path.write_text(json.dumps({"on": flag}))
    done = python(CODE.format(path=str(path)))
    declared, read = json.loads(done.stdout)

    assert [] == [name for name in HEAVY if name in read]
    assert needs_rules is (RULES in read)
    assert "lambda_ext.flags.session" not in declared
    assert RULES not in declared
