"""client(): boto3's responses without boto3, and boto3's own client for the rest."""

from __future__ import annotations

import contextlib
import copy
import inspect
import pickle
import urllib.request
from unittest import mock

import boto3
import botocore.client
import pytest
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError, ParamValidationError
from helpers import python
from moto import mock_aws
from moto.server import ThreadedMotoServer
from wire import Wire, response

import lambda_ext
from lambda_ext.dropin import light_client
from lambda_ext.dropin.light_client import client
from lambda_ext.exceptions import ConfigurationError
from lambda_ext.values.handles import Secret

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def endpoint():
    """A moto server on a port of this machine, in a thread of this process."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def _aws(endpoint, monkeypatch):
    """A new account with two secrets and a few parameters."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("LAMBDA_EXT_TRANSPORT", "light")  # moto is loaded in here
    request = urllib.request.Request(endpoint + "/moto-api/reset", method="POST")
    urllib.request.urlopen(request, timeout=30).close()
    secrets, ssm = boto3.client("secretsmanager"), boto3.client("ssm")
    secrets.create_secret(Name="a", SecretString="1")
    secrets.create_secret(Name="b", SecretBinary=b"\xff")
    for name in ("/p/a", "/p/b", "/p/c"):
        ssm.put_parameter(Name=name, Value=name, Type="String")


def normal(value):
    """Return a response without what differs between two calls of a server."""
    if isinstance(value, dict):
        return {
            name: normal(part)
            for name, part in value.items()
            if name not in ("RequestId", "HTTPHeaders", "LambdaExtCached")
        }
    if isinstance(value, list):
        return [normal(part) for part in value]
    return value


READS = [
    ("secretsmanager", "get_secret_value", {"SecretId": "a"}),
    ("secretsmanager", "get_secret_value", {"SecretId": "b"}),
    ("secretsmanager", "get_secret_value", {"SecretId": "a", "VersionStage": "AWSCURRENT"}),
    ("secretsmanager", "batch_get_secret_value", {"SecretIdList": ["a", "b"]}),
    ("ssm", "get_parameter", {"Name": "/p/a"}),
    ("ssm", "get_parameter", {"Name": "/p/a:1", "WithDecryption": True}),
    ("ssm", "get_parameters_by_path", {"Path": "/p", "MaxResults": 2}),
    ("ssm", "get_parameters_by_path", {"Path": "/p", "NextToken": "2", "MaxResults": 2}),
]  # fmt: skip


ARN = "arn:aws:ssm:eu-central-1:1:parameter/p/a"
ENTRY = {
    "Name": "/p/a",
    "ARN": ARN,
    "Value": "v",
    "Version": 2,
    "LastModifiedDate": 1.7e9,
}
SECRET = {"ARN": "arn:aws:secretsmanager:eu-central-1:1:secret:a-AAAAAA", "Name": "a",
          "SecretString": "x", "VersionId": "0" * 32, "CreatedDate": 1.7e9}  # fmt: skip
ANSWERS = [
    ("ssm", "get_parameter", {"Name": "/p/a"},
     {"Parameter": {**ENTRY, "Selector": None, "SourceResult": None, "New": 1}}),
    ("ssm", "get_parameter", {"Name": "/p/a"},
     {"Parameter": {**ENTRY, "LastModifiedDate": "2023-11-14T22:13:20.5Z"}}),
    ("ssm", "get_parameter", {"Name": "/p/a"},
     {"Parameter": {**ENTRY, "LastModifiedDate": "1700000000.25"}}),
    ("ssm", "get_parameters", {"Names": ["/p/a", "/p/b"]},
     {"Parameters": [{**ENTRY, "Selector": None}], "InvalidParameters": ["/p/b"]}),
    ("ssm", "get_parameters_by_path", {"Path": "/p"},
     {"Parameters": [{**ENTRY, "Type": None}], "NextToken": None}),
    ("secretsmanager", "get_secret_value", {"SecretId": "a"},
     {**SECRET, "SecretBinary": None, "VersionStages": None,
      "CreatedDate": "2023-11-14T22:13:20+02:00"}),
    ("secretsmanager", "batch_get_secret_value", {"SecretIdList": ["a", "b"]},
     {"SecretValues": [{**SECRET, "SecretBinary": None}], "NextToken": None,
      "Errors": [{"SecretId": "b", "ErrorCode": "X", "Message": None}]}),
]  # fmt: skip


@pytest.mark.parametrize(("service", "method", "parameters", "body"), ANSWERS)
def test_answers_as_emulators_write_them(
    service, method, parameters, body, monkeypatch
):
    """Nulls, texts as dates and new members become what boto3 makes of them."""
    media = "application/x-amz-json-1.1"
    with Wire(lambda _: response(200, body, Content_Type=media)) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
        light = client(service)
        expected = getattr(boto3.client(service), method)(**parameters)
        found = [getattr(light, method)(**parameters) for _ in range(2)]

    assert [normal(expected)] * 2 == [normal(each) for each in found]
    assert light._real is None
    assert str(normal(expected)) == str(normal(found[0]))


class TestReads:
    """What is read without boto3."""

    @pytest.mark.parametrize(("service", "method", "parameters"), READS)
    def test_response_is_boto3s(self, service, method, parameters):
        """Members, types, dates and metadata are those of boto3's client."""
        expected = getattr(boto3.client(service), method)(**parameters)
        light = client(service)
        first = getattr(light, method)(**parameters)
        second = getattr(light, method)(**parameters)

        assert normal(expected) == normal(first) == normal(second)
        assert light._real is None
        assert set(expected["ResponseMetadata"]) == set(first["ResponseMetadata"])
        assert second["ResponseMetadata"]["LambdaExtCached"]

    def test_parameters_of_a_batch(self):
        """GetParameters answers with boto3's members, in every order."""
        names = ["/p/b", "/p/a"]
        expected = boto3.client("ssm").get_parameters(Names=names)
        found = client("ssm").get_parameters(Names=names)

        assert sorted(found["Parameters"], key=lambda each: each["Name"]) == sorted(
            expected["Parameters"], key=lambda each: each["Name"]
        )
        assert [] == found["InvalidParameters"]

    def test_boto3_is_not_loaded(self, endpoint):
        """The first secret costs no import of boto3, botocore or wrapt."""
        done = python(
            "import sys, lambda_ext\n"
            "client = lambda_ext.client('secretsmanager')\n"
            "print(client.get_secret_value(SecretId='a')['SecretString'])\n"
            "print(sorted({'boto3', 'botocore', 'wrapt'} & set(sys.modules)))",
            env={"AWS_ENDPOINT_URL": endpoint, "LAMBDA_EXT_TRANSPORT": "auto"},
        )

        assert ("1\n[]\n", "") == (done.stdout, done.stderr)

    def test_entries_are_shared_with_handles(self):
        """A value that a handle has loaded answers a client, and the other way round."""
        handle = Secret("a")
        value = handle.value
        response = client("secretsmanager").get_secret_value(SecretId="a")

        assert ("1", "1") == (value, response["SecretString"])
        assert response["ResponseMetadata"]["LambdaExtCached"]
        assert 1 == lambda_ext.stats().values.loads

    def test_calls_are_counted(self):
        """stats() says what became of each call, also of those that shared a load."""
        light = client("secretsmanager")
        for name in ("a", "a", "b"):
            light.get_secret_value(SecretId=name)
        with contextlib.suppress(ClientError):
            light.get_secret_value(SecretId="missing")
        counted = lambda_ext.stats().clients["GetSecretValue"]

        assert (1, 3, 2) == (counted.hits, counted.misses, counted.stored)

    def test_region_is_that_of_the_time_when_it_was_made(self, monkeypatch):
        """A client asks where boto3's asks, though the variable has changed since."""
        ssm = boto3.client("ssm", region_name="us-east-1")
        ssm.put_parameter(Name="/p/a", Value="there", Type="String")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        there, expected = client("ssm"), boto3.client("ssm")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
        here = client("ssm")
        found = [
            each.get_parameter(Name="/p/a")["Parameter"]["Value"]
            for each in (expected, there, here, there)
        ]

        assert ["there", "there", "/p/a", "there"] == found
        assert expected.meta.region_name == there.meta.region_name
        assert "eu-central-1" == here.meta.region_name

    def test_what_a_caller_changes_stays_with_the_caller(self):
        """No response shares anything with memory."""
        light = client("secretsmanager")
        for _ in range(3):
            response = light.get_secret_value(SecretId="a")
            assert ["AWSCURRENT"] == response["VersionStages"]
            response["VersionStages"].clear()
            response["ResponseMetadata"]["HTTPHeaders"].clear()


class TestRest:
    """What boto3's own client does."""

    def test_missing_secret_is_botocores_error(self):
        """The error is of boto3's class, with boto3's response."""
        light = client("secretsmanager")
        with pytest.raises(light.exceptions.ResourceNotFoundException) as caught:
            light.get_secret_value(SecretId="missing")
        with pytest.raises(ClientError) as expected:
            boto3.client("secretsmanager").get_secret_value(SecretId="missing")

        assert normal(expected.value.response) == normal(caught.value.response)

    def test_except_works_before_boto3s_client_is_made(self):
        """An except clause that names the class finds the error."""
        light = client("secretsmanager")
        try:
            light.get_secret_value(SecretId="missing")
        except light.exceptions.ResourceNotFoundException:
            caught = True

        assert caught

    @pytest.mark.parametrize(
        "parameters",
        [{}, {"SecretId": ""}, {"SecretId": 1}, {"SecretId": "a", "X": 1},
         {"SecretId": None}, {"SecretId": "a", "VersionId": "short"},
         {"SecretId": "a", "VersionStage": ""}],
    )  # fmt: skip
    def test_wrong_parameters_are_boto3s_error(self, parameters):
        """Validation is boto3's own."""
        with pytest.raises(ParamValidationError) as expected:
            boto3.client("secretsmanager").get_secret_value(**parameters)
        with pytest.raises(ParamValidationError) as caught:
            client("secretsmanager").get_secret_value(**parameters)

        assert str(expected.value) == str(caught.value)

    @pytest.mark.parametrize(
        ("service", "method", "parameters"),
        [
            ("secretsmanager", "batch_get_secret_value", {"SecretIdList": []}),
            ("ssm", "get_parameters", {"Names": []}),
            ("ssm", "get_parameters", {"Names": ["/p/a", 1]}),
            ("ssm", "get_parameter", {"Name": ""}),
            ("ssm", "get_parameter", {"Name": "/p/a", "WithDecryption": "yes"}),
            ("ssm", "get_parameters_by_path", {"Path": "/p", "MaxResults": 0}),
        ],
    )
    def test_lengths_and_types_are_boto3s_to_judge(self, service, method, parameters):
        """An empty list, an empty name and a wrong type are botocore's error."""
        with pytest.raises(ParamValidationError) as expected:
            getattr(boto3.client(service), method)(**parameters)
        with pytest.raises(ParamValidationError) as caught:
            getattr(client(service), method)(**parameters)

        assert str(expected.value) == str(caught.value)

    def test_positional_argument_is_boto3s_error(self):
        """boto3 takes keywords only, and says so."""
        with pytest.raises(TypeError, match="keyword"):
            client("secretsmanager").get_secret_value("a")

    def test_other_operations_and_writes(self):
        """Another operation goes to boto3's client, a write drops what it changes."""
        light = client("secretsmanager")
        before = light.get_secret_value(SecretId="a")["SecretString"]
        light.put_secret_value(SecretId="a", SecretString="2")

        assert ("1", "2") == (
            before,
            light.get_secret_value(SecretId="a")["SecretString"],
        )
        assert (
            "2"
            == client("secretsmanager").get_secret_value(SecretId="a")["SecretString"]
        )
        assert "secretsmanager" == light.meta.service_model.service_name

    def test_boto3s_own_function_may_be_replaced_by_it(self, monkeypatch):
        """Where boto3.client is this function, boto3's client is made all the same."""
        monkeypatch.setattr(boto3, "client", client)
        light = boto3.client("secretsmanager")

        assert "a" == light.describe_secret(SecretId="a")["Name"]

    def test_paginator(self):
        """A paginator is boto3's, over the cache."""
        pages = (
            client("ssm").get_paginator("get_parameters_by_path").paginate(Path="/p")
        )

        assert ["/p/a", "/p/b", "/p/c"] == [
            each["Name"] for page in pages for each in page["Parameters"]
        ]

    @pytest.mark.parametrize(
        "keywords",
        [{"region_name": "us-east-1"}, {"aws_access_key_id": "x", "aws_secret_access_key": "y"}],
    )  # fmt: skip
    def test_keywords_make_boto3s_client(self, keywords):
        """What the light way cannot serve is boto3's from the first call."""
        light = client("secretsmanager", **keywords)
        with contextlib.suppress(ClientError):  # of another region
            light.get_secret_value(SecretId="a")

        assert light._real is not None

    def test_region_of_the_environment_is_no_reason(self):
        """region_name= that says what the environment says stays light."""
        light = client("secretsmanager", region_name="eu-central-1")
        light.get_secret_value(SecretId="a")

        assert light._real is None


class TestKeywords:
    """What is passed on to boto3's client."""

    def test_unknown_one_is_refused_when_the_client_is_made(self):
        """As boto3 does it, and not at the first read."""
        with pytest.raises(TypeError, match="regoin_name"):
            client("ssm", regoin_name="eu-west-1")

    def test_all_that_boto3_has_are_known(self):
        """Those make no client of boto3's before they are needed; but newer ones do."""
        known = inspect.signature(boto3.session.Session.client).parameters
        newer = {"aws_account_id"}  # boto3 1.34 has no such parameter

        assert light_client.KEYWORDS == known.keys() - {"self", "service_name"} - newer

    def test_newer_one_is_boto3s_affair_when_the_client_is_made(self):
        """A client with it, or the TypeError of a boto3 that does not know it."""
        account = {"aws_account_id": "123456789012"}

        def outcome(make):
            try:
                made = make("ssm", **account)
            except TypeError as exc:
                return str(exc)
            return isinstance(getattr(made, "_real", made), BaseClient)

        assert outcome(boto3.client) == outcome(client)


class TestStandIns:
    """What tests and programs put in the place of botocore, or of the environment."""

    @pytest.fixture(name="read")
    def _read(self):
        """A client that has read a secret, which is in memory now."""
        light = client("secretsmanager")
        light.get_secret_value(SecretId="a")
        light.get_secret_value(SecretId="a")
        assert light._real is None
        return light

    @pytest.mark.parametrize("which", ["read", "new"])
    @pytest.mark.parametrize(
        ("method", "parameters"),
        [
            ("get_secret_value", {"SecretId": "a"}),
            ("batch_get_secret_value", {"SecretIdList": ["a"]}),
        ],
    )
    def test_of_botocores_method(self, read, monkeypatch, which, method, parameters):
        """A stand-in for _make_api_call answers, also where a value is in memory; then AWS does."""
        light = read if which == "read" else client("secretsmanager")
        with monkeypatch.context() as patch:
            patch.setattr(
                "botocore.client.BaseClient._make_api_call",
                lambda self, operation, parameters: {"from": "a stand-in"},
            )
            stood_in = [getattr(light, method)(**parameters) for _ in range(2)]
        response = client("secretsmanager").get_secret_value(SecretId="a")

        assert [{"from": "a stand-in"}] * 2 == stood_in
        assert "1" == response["SecretString"]

    @pytest.mark.parametrize("which", ["read", "new"])
    def test_of_aws_by_moto(self, read, monkeypatch, which):
        """Inside mock_aws() the mock answers, not what was read before it."""
        monkeypatch.delenv("AWS_ENDPOINT_URL")
        light = read if which == "read" else client("secretsmanager")
        with mock_aws(), pytest.raises(ClientError, match="ResourceNotFound"):
            light.get_secret_value(SecretId="a")

    @pytest.mark.parametrize(
        "name",
        [
            "botocore.client.BaseClient._make_api_call",
            "botocore.client.BaseClient._make_request",
            "botocore.endpoint.Endpoint.make_request",
            "botocore.httpsession.URLLib3Session.send",
        ],
    )
    @pytest.mark.parametrize("autospec", [True, None])
    def test_mock_of_any_of_botocores_methods_is_called(self, name, autospec):
        """Nothing is sent past what a test has mocked, though the mock looks like it."""
        light = client("secretsmanager")
        with mock.patch(
            name, autospec=autospec, side_effect=KeyError("mocked")
        ) as call:
            with pytest.raises(KeyError, match="mocked"):
                light.get_secret_value(SecretId="a")

            assert 1 == call.call_count
        assert "1" == light.get_secret_value(SecretId="a")["SecretString"]

    def test_of_one_method(self, read, monkeypatch):
        """A method that is set on the client is called; deleting it undoes that."""
        with monkeypatch.context() as patch:
            patch.setattr(read, "get_secret_value", lambda **parameters: "mine")
            mine = read.get_secret_value(SecretId="a")

        assert ("mine", None) == (mine, read._real)
        assert "1" == read.get_secret_value(SecretId="a")["SecretString"]

    def test_of_what_boto3s_client_has(self, read, monkeypatch):
        """What else is set is set on boto3's client, which uses it."""
        with monkeypatch.context() as patch:
            patch.setattr(read, "_make_api_call", lambda *args: {"mine": args})
            mine = read.describe_secret(SecretId="a")

        assert {"mine": ("DescribeSecret", {"SecretId": "a"})} == mine
        assert "a" == read.describe_secret(SecretId="a")["Name"]
        read.colour = "blue"
        assert "blue" == read.colour
        del read.colour
        with pytest.raises(AttributeError, match="colour"):
            _ = read.colour

    def test_spec_of_a_mock(self, read):
        """A mock that is specified by the client has its methods."""
        specified = mock.MagicMock(spec=read)

        assert specified.get_secret_value is not None
        with pytest.raises(AttributeError):
            _ = specified.nonsense

    @pytest.mark.parametrize(
        "given",
        [
            {"region_name": "us-west-2"},
            {"aws_access_key_id": "x", "aws_secret_access_key": "y"},
        ],
        ids=["region", "keys"],
    )
    def test_default_session_of_ones_own(self, read, monkeypatch, given):
        """What boto3's default session was given holds for the client, as for boto3's."""
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", boto3.Session(**given))
        expected = boto3.client("secretsmanager")
        light = client("secretsmanager")
        with contextlib.suppress(ClientError):
            light.get_secret_value(SecretId="a")

        assert light._real is not None
        assert expected.meta.region_name == light.meta.region_name
        assert (
            expected._request_signer._credentials.access_key
            == light._request_signer._credentials.access_key
        )

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("AWS_DEFAULT_REGION", "us-west-2"),
            ("AWS_ACCESS_KEY_ID", "AKIAOTHER"),
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
        ],
    )
    def test_variables_of_a_new_client(self, read, monkeypatch, name, value):
        """A client that is made after a variable has changed goes by it, as boto3's."""
        monkeypatch.setenv(name, value)
        monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
        expected = outcome(boto3.client("secretsmanager", config=ONCE))
        light = client("secretsmanager")

        assert expected == outcome(light)
        assert light._real is not None

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("AWS_ENDPOINT_URL", "http://aws.invalid:4566"),
            ("AWS_ENDPOINT_URL", "nonsense"),
            ("AWS_DEFAULT_REGION", "no region"),
            ("AWS_PROFILE", "nobody"),
        ],
    )
    def test_what_only_boto3_can_judge(self, endpoint, name, value):
        """Where the light transport refuses to go the error is boto3's own."""
        env = {
            "AWS_ENDPOINT_URL": endpoint,
            "LAMBDA_EXT_TRANSPORT": "auto",
            "AWS_MAX_ATTEMPTS": "1",
            name: value,
        }
        done = python(
            "import boto3, lambda_ext\n"
            "for make in (boto3.client, lambda_ext.client):\n"
            "    try:\n"
            "        make('ssm').get_parameter(Name='/p/a')\n"
            "    except Exception as exc:\n"
            "        print(type(exc).__name__, exc)",
            env=env,
        )
        first, second = done.stdout.splitlines()

        assert first == second


ONCE = Config(retries={"total_max_attempts": 1})


def outcome(client):
    """Return what reading a secret gives, or which error."""
    try:
        return client.get_secret_value(SecretId="a")["SecretString"]
    except Exception as exc:
        return type(exc).__name__


class TestClient:
    """What the client is."""

    def test_closing_loads_nothing(self, endpoint):
        """close() of a client that has only read needs no boto3, and ends nothing."""
        done = python(
            "import sys, lambda_ext\n"
            "client = lambda_ext.client('ssm')\n"
            "client.get_parameter(Name='/p/a')\n"
            "client.close()\n"
            "print(client.get_parameter(Name='/p/a')['Parameter']['Value'])\n"
            "print('boto3' in sys.modules)\n"
            "client.meta\n"
            "client.close()\n"
            "print(client.get_parameter(Name='/p/a')['Parameter']['Value'])",
            env={"AWS_ENDPOINT_URL": endpoint, "LAMBDA_EXT_TRANSPORT": "auto"},
        )

        assert ("/p/a\nFalse\n/p/a\n", "") == (done.stdout, done.stderr)

    def test_cached_and_patch_leave_it_alone(self):
        """It is cached already: it comes back as it is, and so does a mock of a client."""
        light = client("ssm")
        stand_in = mock.MagicMock(spec=boto3.client("ssm"))

        assert lambda_ext.cached(light) is light
        assert lambda_ext.cached(stand_in) is stand_in
        assert light._real is None

    def test_region_by_position(self):
        """The region may stand second, as with boto3; another is boto3's affair."""
        light, other = client("ssm", "eu-central-1"), client("ssm", "us-west-2")
        light.get_parameter(Name="/p/a")
        with pytest.raises(ClientError, match="ParameterNotFound"):
            other.get_parameter(Name="/p/a")

        assert (None, "us-west-2") == (light._real, other.meta.region_name)

    def test_isinstance_before_botocore_is_loaded(self):
        """__class__ answers so only once botocore.client is loaded, and loads nothing."""
        done = python(
            "import sys, lambda_ext\n"
            "client = lambda_ext.client('ssm')\n"
            "print(client.__class__.__name__, 'botocore' in sys.modules)\n"
            "import botocore.client\n"
            "print(isinstance(client, botocore.client.BaseClient), client._real)"
        )

        assert "LightClient False\nTrue None\n" == done.stdout

    def test_dunder_names_make_no_boto3_client(self):
        """What copy, len and others look for is missing, without boto3's client."""
        light = client("ssm")
        for name in ("__deepcopy__", "__len__", "__iter__", "__enter__", "__fspath__"):
            assert not hasattr(light, name)
        assert light._real is None

    def test_is_a_botocore_client(self):
        """isinstance says so once botocore is loaded."""
        assert isinstance(client("ssm"), botocore.client.BaseClient)

    def test_is_not_copied_or_pickled(self):
        """Copying and pickling are refused, and make no boto3 client."""
        light = client("ssm")
        for refused in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(TypeError, match="pickle"):
                refused(light)
        assert light._real is None

    def test_other_services_are_refused(self):
        """A service that is not served here is an error that names boto3.client."""
        with pytest.raises(ConfigurationError, match=r"boto3\.client\('s3'\)"):
            client("s3")

    def test_attributes_are_boto3s(self):
        """dir() lists what boto3's client has; an unknown name is its error."""
        light = client("ssm")

        assert set(dir(boto3.client("ssm"))) == set(dir(light))
        with pytest.raises(AttributeError, match="nonsense"):
            light.nonsense
