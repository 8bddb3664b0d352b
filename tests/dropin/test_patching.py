"""patch(): clients that others make answer from memory, until unpatch()."""

from __future__ import annotations

import gc
import logging

import boto3
import botocore.session
import pytest
from helpers import python
from moto import mock_aws

from lambda_ext.dropin import tallies
from lambda_ext.dropin.patching import patch, unpatch
from lambda_ext.values.getters import get_secret

pytestmark = pytest.mark.logs  # clients of other tests exist, which patch() tells


@pytest.fixture(autouse=True)
def _mock():
    with mock_aws():
        boto3.client("secretsmanager").create_secret(Name="a", SecretString="1")
        yield


def hits(make):
    """Read twice with a client that *make* makes; return how often from memory."""
    client = make()
    for _ in range(3):
        client.get_secret_value(SecretId="a")
    counted = tallies.counters().get("GetSecretValue", {"hits": 0})
    return counted["hits"]


class TestPatch:
    """patch()"""

    @pytest.mark.parametrize(
        "make",
        [
            lambda: boto3.client("secretsmanager"),
            lambda: boto3.session.Session().client("secretsmanager"),
            lambda: botocore.session.get_session().create_client("secretsmanager"),
        ],
        ids=["boto3", "session", "botocore"],
    )
    def test_new_clients_answer_from_memory(self, make):
        """Made by boto3, by a session of it, or by botocore."""
        with patch():
            assert 2 == hits(make)

    def test_class_is_the_clients_own(self):
        """The client's class is botocore's by name, and a BaseClient."""
        with patch():
            client = boto3.client("secretsmanager")

        assert "SecretsManager" == type(client).__name__
        assert isinstance(client, botocore.client.BaseClient)

    def test_other_services_are_left_alone(self):
        """A client of another service has the class that botocore made."""
        with patch():
            client = boto3.client("sts")

        assert (botocore.client.BaseClient,) == type(client).__bases__

    def test_ends_with_its_block(self):
        """Clients that are made after the block ask AWS."""
        with patch():
            pass

        assert 0 == hits(lambda: boto3.client("secretsmanager"))

    def test_nested_blocks_restore_what_was_before(self):
        """The options of the outer block hold again after the inner one."""
        with patch():
            with patch(never=["*"]):
                assert 0 == hits(lambda: boto3.client("secretsmanager"))
            assert 2 == hits(lambda: boto3.client("secretsmanager"))

    def test_unpatch_twice_is_once(self):
        """unpatch() may be called at any time, any number of times."""
        patch()
        unpatch()
        unpatch()

        assert 0 == hits(lambda: boto3.client("secretsmanager"))

    def test_twice_is_once(self):
        """A client is wrapped once however often patch() was called."""
        with patch(), patch():
            client = boto3.client("secretsmanager")

        assert botocore.client.BaseClient is type(client).__mro__[2]

    def test_own_clients_of_the_library_stay_bare(self, monkeypatch):
        """What the library asks for itself goes through no second cache."""
        monkeypatch.setenv("LAMBDA_EXT_TRANSPORT", "boto3")
        with patch():
            assert "1" == get_secret("a")

        assert {} == tallies.counters()

    def test_clients_that_exist_are_told_of(self, caplog):
        """One line says how many clients stay as they are."""
        clients = [boto3.client("secretsmanager"), boto3.client("ssm")]
        with caplog.at_level(logging.WARNING, "lambda_ext"), patch():
            pass

        lines = [
            record.getMessage()
            for record in caplog.records
            if "clients_not_patched" in record.getMessage()
        ]
        assert (2, 1) == (len(clients), len(lines))
        assert "call patch() first" in lines[0]

    def test_own_clients_of_the_library_are_not_told_of(self, monkeypatch, caplog):
        """They are bare for good: no call of patch() could be earlier."""
        monkeypatch.setenv("LAMBDA_EXT_TRANSPORT", "boto3")
        gc.collect()  # clients of other tests are in cycles

        def told():
            caplog.clear()
            with patch():
                pass
            return [text for text in caplog.messages if "not_patched" in text]

        before = told()
        assert "1" == get_secret("a")
        assert before == told()

    def test_neither_imports_boto3_nor_needs_it(self):
        """patch() before boto3 is loaded takes effect when it is."""
        done = python(
            "import sys\n"
            "from lambda_ext.dropin.patching import patch\n"
            "patch()\n"
            "assert not {'boto3', 'botocore', 'botocore.session'} & set(sys.modules)\n"
            "import boto3\n"
            "client = boto3.client('ssm', region_name='eu-west-1',"
            " aws_access_key_id='a', aws_secret_access_key='b')\n"
            "print(type(client).__mro__[1].__name__, type(client).__mro__[2].__name__)"
        )

        assert ("SSM BaseClient\n", "") == (done.stdout, done.stderr)
