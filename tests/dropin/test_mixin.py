"""A cached client: the bare client's answers and errors, and far fewer calls."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import gc
import json
import types
import weakref

import boto3
import botocore.client
import pytest
import wrapt
from botocore.awsrequest import AWSResponse
from botocore.exceptions import ClientError, ParamValidationError
from botocore.stub import Stubber
from helpers import eventually, run_threads
from moto import mock_aws

from lambda_ext.dropin import mixin, tallies
from lambda_ext.dropin.mixin import cached
from lambda_ext.exceptions import ConfigurationError
from lambda_ext.lifecycle import phases
from lambda_ext.testing import FakeClock
from lambda_ext.values import store
from lambda_ext.values.getters import get_parameter, get_secret
from lambda_ext.values.handles import Secret

METADATA = "ResponseMetadata"
RESPONSE = {
    "ARN": "arn:aws:secretsmanager:eu-central-1:1:secret:a-AAAAAA",
    "Name": "a",
    "SecretString": "recorded",
}


@pytest.fixture(name="calls")
def _calls(monkeypatch):
    """The operations that reach the wire, in order."""
    calls = []
    wire = botocore.client.BaseClient._make_request

    def _make_request(self, model, *args):
        calls.append(model.name)
        return wire(self, model, *args)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_request", _make_request)
    return calls


@pytest.fixture(name="mock")
def _mock():
    with mock_aws():
        yield


@pytest.fixture(name="bare")
def _bare(mock):
    return boto3.client("secretsmanager")


@pytest.fixture(name="ssm")
def _ssm(mock):
    return boto3.client("ssm")


def plain(response):
    """Return *response* without what differs from call to call."""
    return {name: part for name, part in response.items() if name != METADATA}


class TestClient:
    """What the client is."""

    def test_is_of_the_class_of_the_bare_one(self, bare):
        """Class name, isinstance, attributes, exceptions and metadata are its own."""
        client = cached(bare)

        assert isinstance(client, type(bare))
        assert isinstance(client, botocore.client.BaseClient)
        assert type(bare).__name__ == type(client).__name__
        assert dir(bare) == dir(client)
        assert bare.exceptions is client.exceptions
        assert bare.meta is client.meta

    def test_original_is_left_alone(self, bare, calls):
        """The client that was given goes on asking AWS."""
        former = type(bare)
        bare.create_secret(Name="a", SecretString="1")
        cached(bare).get_secret_value(SecretId="a")
        del calls[:]
        bare.get_secret_value(SecretId="a")
        bare.get_secret_value(SecretId="a")

        assert former is type(bare)
        assert ["GetSecretValue"] * 2 == calls

    def test_twice_is_once(self, bare):
        """Wrapping a cached client gives the same client."""
        client = cached(bare)

        assert client is cached(client)

    def test_others_come_back_untouched(self, mock):
        """A client of another service, and what is no client, are returned as given."""
        sts = boto3.client("sts")
        stand_in = object()

        assert sts is cached(sts)
        assert stand_in is cached(stand_in)

    @pytest.mark.parametrize("given", ["secretsmanager", None, boto3, boto3.Session])
    def test_what_can_be_no_client_is_refused(self, given):
        """Text is meant for `client`, a module or a class is a slip: nothing is cached."""
        with pytest.raises(ConfigurationError, match=r"takes a client of boto3, not"):
            cached(given)

    @pytest.mark.parametrize(
        "options",
        [
            {"only": "prod/*"},
            {"never": [1]},
            {"only": ["a"], "never": ["a"]},
            {"max_age": -1},
            {"max_age": True},
            {"never": 3},
            {"only": [""]},
        ],
    )
    def test_unusable_options_are_refused(self, bare, options):
        """What cannot be an option is an error that says what to write."""
        with pytest.raises(ConfigurationError):
            cached(bare, **options)


class TestReads:
    """Reads are answered from memory, and equal boto3's."""

    def test_second_read_asks_nothing_of_aws(self, bare, calls):
        """One call, equal responses, and a mark in the metadata of the second."""
        bare.create_secret(Name="a", SecretString="1")
        expected = plain(bare.get_secret_value(SecretId="a"))
        client = cached(bare)
        del calls[:]
        first = client.get_secret_value(SecretId="a")
        second = client.get_secret_value(SecretId="a")
        third = client.get_secret_value(SecretId="a")

        assert ["GetSecretValue"] == calls
        assert [expected] * 3 == [plain(first), plain(second), plain(third)]
        assert "LambdaExtCached" not in first[METADATA]
        assert second[METADATA] == {**first[METADATA], "LambdaExtCached": True}
        assert second[METADATA] == third[METADATA]

    def test_what_a_caller_changes_stays_with_the_caller(self, bare):
        """No response shares anything with memory or with another one."""
        bare.create_secret(Name="a", SecretString="1")
        client = cached(bare)
        for _ in range(3):
            response = client.get_secret_value(SecretId="a")
            expected = plain(bare.get_secret_value(SecretId="a"))

            assert expected == plain(response)
            response["VersionStages"].append("x")
            response[METADATA]["HTTPHeaders"].clear()
            response["SecretString"] = "changed"

    def test_what_a_caller_changes_in_a_batch_stays_with_the_caller(self, ssm):
        """A batch shares nothing with memory or with another response either."""
        for name in "ab":
            ssm.put_parameter(Name=name, Value=name, Type="String")
        client = cached(ssm)
        for _ in range(3):
            response = client.get_parameters(Names=["a", "b"])

            assert "content-type" in response[METADATA]["HTTPHeaders"]
            assert {"a", "b"} == {each["Value"] for each in response["Parameters"]}
            response[METADATA]["HTTPHeaders"].clear()
            response["Parameters"][0]["Value"] = "changed"

    def test_binary_secret_stays_bytes(self, bare):
        """A blob is bytes from memory, too."""
        bare.create_secret(Name="a", SecretBinary=b"\xff")
        client = cached(bare)

        assert [b"\xff"] * 2 == [
            client.get_secret_value(SecretId="a")["SecretBinary"] for _ in range(2)
        ]

    def test_versions_and_stages_are_keys_of_their_own(self, bare, calls):
        """Another stage or version is another read; AWSPENDING is never kept."""
        bare.create_secret(Name="a", SecretString="1")
        former = bare.get_secret_value(SecretId="a")["VersionId"]
        bare.put_secret_value(SecretId="a", SecretString="2")
        client = cached(bare)
        forms = (
            {"SecretId": "a"},
            {"SecretId": "a", "VersionStage": "AWSPREVIOUS"},
            {"SecretId": "a", "VersionId": former},
        )
        del calls[:]
        values = [
            client.get_secret_value(**form)["SecretString"]
            for form in forms
            for _ in range(2)
        ]

        assert ["2", "2", "1", "1", "1", "1"] == values
        assert ["GetSecretValue"] * 3 == calls

        for _ in range(2):
            with pytest.raises(ClientError):
                client.get_secret_value(SecretId="a", VersionStage="AWSPENDING")
        assert ["GetSecretValue"] * 5 == calls

    def test_decryption_is_part_of_the_key(self, ssm):
        """A SecureString is kept encrypted and decrypted, apart."""
        ssm.put_parameter(Name="p", Value="v", Type="SecureString")
        client = cached(ssm)
        for _ in range(2):
            for options in ({}, {"WithDecryption": True}, {"WithDecryption": False}):
                expected = plain(ssm.get_parameter(Name="p", **options))

                assert expected == plain(client.get_parameter(Name="p", **options))

    def test_batch_asks_for_what_is_missing(self, bare, calls):
        """Only secrets that are not in memory are asked for, in one call."""
        for name in "abc":
            bare.create_secret(Name=name, SecretString=name * 3)
        asked = []
        bare.meta.events.register(
            "before-sign.secrets-manager.BatchGetSecretValue",
            lambda request, **_: asked.append(json.loads(request.data)),
        )
        client = cached(bare)
        client.get_secret_value(SecretId="a")
        del calls[:]
        response = client.batch_get_secret_value(SecretIdList=["a", "b", "c"])
        again = client.batch_get_secret_value(SecretIdList=["a", "b", "c"])
        single = client.get_secret_value(SecretId="b")

        assert ["BatchGetSecretValue"] == calls
        assert [{"SecretIdList": ["b", "c"]}] == asked
        assert ["aaa", "bbb", "ccc"] == [
            value["SecretString"] for value in response["SecretValues"]
        ]
        assert plain(response) == plain(again)
        assert "bbb" == single["SecretString"]

    def test_batch_with_errors_is_as_aws_answers_it(self, bare, calls):
        """What is missing stands in Errors, is asked for again, and hides nothing."""
        bare.create_secret(Name="a", SecretString="1")
        client = cached(bare)
        expected = plain(bare.batch_get_secret_value(SecretIdList=["a", "x"]))
        del calls[:]
        found = [
            plain(client.batch_get_secret_value(SecretIdList=["a", "x"]))
            for _ in range(2)
        ]

        assert [expected] * 2 == found
        assert ["BatchGetSecretValue"] * 2 == calls

    def test_parameters_of_a_batch(self, ssm, calls):
        """GetParameters is kept name by name; an unknown name is not."""
        for name in ("/p/a", "/p/b"):
            ssm.put_parameter(Name=name, Value=name * 2, Type="String")
        client = cached(ssm)
        del calls[:]
        for _ in range(2):
            response = client.get_parameters(Names=["/p/b", "/p/a"])

            assert {"/p/a", "/p/b"} == {each["Name"] for each in response["Parameters"]}
        assert ["GetParameters"] == calls
        assert [] == response["InvalidParameters"]

        response = client.get_parameters(Names=["/p/a", "/p/x"])

        assert (["/p/x"], 1) == (
            response["InvalidParameters"],
            len(response["Parameters"]),
        )

    @pytest.mark.parametrize("selector", [":none", ":label"])
    def test_plain_value_of_a_batch_is_of_no_label(self, ssm, selector):
        """What a batch says of a name is not taken for what a label of its ARN means."""
        for value in "12":
            ssm.put_parameter(Name="/p/a", Value=value, Type="String", Overwrite=True)
        ssm.label_parameter_version(Name="/p/a", ParameterVersion=1, Labels=["label"])
        arn = ssm.get_parameter(Name="/p/a")["Parameter"]["ARN"]
        names = [arn + selector, "/p/a"]
        client = cached(ssm)
        client.get_parameters(Names=names)
        batch = client.get_parameters(Names=names)
        expected = ssm.get_parameters(Names=names)

        def outcome(client):
            try:
                return client.get_parameter(Name=arn + selector)["Parameter"]["Value"]
            except ClientError as exc:
                return exc.response["Error"]["Code"]

        for response in (expected, batch):  # moto answers in any order
            response["Parameters"].sort(key=lambda each: each["Version"])

        assert plain(expected) == plain(batch)
        assert outcome(ssm) == outcome(client)

    def test_selected_value_of_a_batch_is_the_one_with_the_selector(self, ssm):
        """AWS tells the two entries of one version apart by their Selector."""
        arn = "arn:aws:ssm:eu-central-1:1:parameter/p/a"
        entry = {"Name": "/p/a", "ARN": arn, "Version": 2, "Value": "v"}
        body = {"Parameters": [entry, {**entry, "Selector": ":2"}]}

        def answer(**_):
            response = AWSResponse("https://aws", 200, {}, None)
            response._content = json.dumps(body).encode()
            return response

        ssm.meta.events.register_first("before-send.ssm.GetParameters", answer)
        client = cached(ssm)
        client.get_parameters(Names=["/p/a", arn + ":2"])

        assert ":2" == client.get_parameter(Name=arn + ":2")["Parameter"]["Selector"]

    def test_paginator_goes_through_memory(self, ssm, calls):
        """Each page is kept; a paginator over them sends nothing the second time."""
        for number in range(25):
            ssm.put_parameter(Name=f"/p/{number:02}", Value="v", Type="String")
        client = cached(ssm)
        del calls[:]
        found = [
            [
                parameter["Name"]
                for page in client.get_paginator("get_parameters_by_path").paginate(
                    Path="/p"
                )
                for parameter in page["Parameters"]
            ]
            for _ in range(2)
        ]

        assert found[0] == found[1]
        assert (25, ["GetParametersByPath"] * 3) == (len(found[0]), calls)

    def test_forms_that_boto3_refuses_are_refused_on_a_hit_too(self, bare):
        """Validation is boto3's, also where an equal value is in memory."""
        bare.create_secret(Name="1", SecretString="x")
        client = cached(bare)
        client.get_secret_value(SecretId="1")
        for wrong in (1, b"1", None, ["1"]):
            with pytest.raises(ParamValidationError):
                client.get_secret_value(SecretId=wrong)
        with pytest.raises(ParamValidationError):
            client.get_secret_value(SecretId="1", Other="x")
        with pytest.raises(ParamValidationError):
            client.get_secret_value()

    @pytest.mark.parametrize(
        "parameters",
        [
            {"NextToken": None},
            {"MaxResults": None},
            {"ParameterFilters": None},
            {"ParameterFilters": [{"Key": "Type", "Values": []}]},
            {"ParameterFilters": [{"Key": "Type", "Option": None, "Values": ["String"]}]},
        ],
    )  # fmt: skip
    def test_nothing_given_as_none_is_refused_on_a_hit_too(self, ssm, parameters):
        """None for a parameter, or an empty list of values, is what boto3 refuses."""
        client = cached(ssm)
        for _ in range(2):
            client.get_parameters_by_path(Path="/p")
        for each in ([], [{"Key": "Type", "Values": ["String"]}]):
            with contextlib.suppress(ClientError):
                client.get_parameters_by_path(Path="/p", ParameterFilters=each)
        with pytest.raises(ParamValidationError) as expected:
            ssm.get_parameters_by_path(Path="/p", **parameters)
        with pytest.raises(ParamValidationError) as found:
            client.get_parameters_by_path(Path="/p", **parameters)

        assert str(expected.value) == str(found.value)

    def test_true_is_not_one(self, ssm):
        """WithDecryption=1 is refused although True is in memory."""
        ssm.put_parameter(Name="p", Value="v", Type="String")
        client = cached(ssm)
        for _ in range(2):
            client.get_parameter(Name="p", WithDecryption=True)

        with pytest.raises(ParamValidationError):
            client.get_parameter(Name="p", WithDecryption=1)

    def test_errors_are_botocores_and_not_remembered(self, bare, calls):
        """A missing secret is asked for each time, and found once it is there."""
        client = cached(bare)
        del calls[:]
        for _ in range(2):
            with pytest.raises(client.exceptions.ResourceNotFoundException) as caught:
                client.get_secret_value(SecretId="a")
            assert "GetSecretValue" == caught.value.operation_name
            assert caught.value.__context__ is None
        bare.create_secret(Name="a", SecretString="1")

        assert ["GetSecretValue"] * 2 == calls[:2]
        assert "1" == client.get_secret_value(SecretId="a")["SecretString"]

    def test_only_and_never(self, bare, calls):
        """Names that are not to be kept are asked for each time."""
        for name in ("prod/a", "prod/b", "x"):
            bare.create_secret(Name=name, SecretString="1")
        client = cached(bare, only=["prod/*"], never=["prod/b"])
        del calls[:]
        for name in ("prod/a", "prod/b", "x"):
            for _ in range(2):
                client.get_secret_value(SecretId=name)

        assert 5 == len(calls)

    @pytest.mark.parametrize("form", ["name", "arn", "partial"])
    @pytest.mark.parametrize("never", ["name", "arn", "partial"])
    def test_never_holds_for_each_form_of_the_name(self, bare, calls, form, never):
        """What is never kept is not, by each form of its name, excluded or kept."""
        arn = bare.create_secret(Name="prod/a", SecretString="1")["ARN"]
        names = {"name": "prod/a", "arn": arn, "partial": arn[:-7]}
        cached(bare).get_secret_value(SecretId=names[form])
        client = cached(bare, never=[names[never]])
        del calls[:]
        for _ in range(2):
            client.get_secret_value(SecretId=names[form])
            client.batch_get_secret_value(SecretIdList=[names[form]])

        assert ["GetSecretValue", "BatchGetSecretValue"] * 2 == calls

    @pytest.mark.parametrize(
        "never", ["/p/never", "/p/nev*", "arn:*:parameter/p/never"]
    )
    def test_never_holds_for_pages(self, ssm, calls, never):
        """A page is kept until a parameter is in it that is never kept."""
        ssm.put_parameter(Name="/p/a", Value="1", Type="String")
        client = cached(ssm, never=[never])
        del calls[:]
        for _ in range(2):
            client.get_parameters_by_path(Path="/p")
        client.put_parameter(Name="/p/never", Value="1", Type="String")
        for _ in range(2):
            client.get_parameters_by_path(Path="/p")

        page = "GetParametersByPath"
        assert [page, "PutParameter", page, page] == calls

    def test_never_holds_for_references(self, bare, ssm, calls):
        """A secret that is never kept is not kept as a parameter either."""
        bare.create_secret(Name="a", SecretString="1")
        client = cached(ssm, never=["a"])
        del calls[:]
        for _ in range(2):
            client.get_parameter(
                Name="/aws/reference/secretsmanager/a", WithDecryption=True
            )

        assert ["GetParameter"] * 2 == calls

    def test_max_age_0_asks_each_time(self, bare, calls):
        """With max_age=0 each read is a call."""
        bare.create_secret(Name="a", SecretString="1")
        client = cached(bare, max_age=0)
        del calls[:]
        for _ in range(3):
            client.get_secret_value(SecretId="a")

        assert 3 == len(calls)

    def test_expired_value_is_read_anew(self, bare, calls):
        """After max_age, freezes included, a read asks AWS."""
        with FakeClock() as clock:
            bare.create_secret(Name="a", SecretString="1")
            client = cached(bare, max_age=60)
            client.get_secret_value(SecretId="a")
            del calls[:]
            client.get_secret_value(SecretId="a")
            clock.freeze(61)
            client.get_secret_value(SecretId="a")

        assert ["GetSecretValue"] == calls

    def test_hundred_threads_are_one_call(self, bare, calls):
        """One cold read of a hundred threads is one call of AWS."""
        bare.create_secret(Name="a", SecretString="1")
        client = cached(bare)
        del calls[:]
        values = run_threads(
            100, lambda _: client.get_secret_value(SecretId="a")["SecretString"]
        )

        assert ({"1"}, ["GetSecretValue"]) == (set(values), calls)

    def test_waiters_share_no_error(self, bare, monkeypatch):
        """Each caller has an error, and a response in it, of its own."""
        base = botocore.client.BaseClient
        wire, found = base._make_request, []

        def _make_request(self, *args):
            eventually(lambda: store.loader.misses > 1)  # the other one waits, too
            return wire(self, *args)

        monkeypatch.setattr(base, "_make_request", _make_request)
        client = cached(bare)

        def read(_):
            try:
                client.get_secret_value(SecretId="missing")
            except ClientError as exc:
                found.append(exc)

        run_threads(2, read)
        one, other = found
        one.response["Error"]["Message"] = "changed"
        one.response["ResponseMetadata"].clear()

        assert "changed" != other.response["Error"]["Message"]
        assert other.response["ResponseMetadata"]
        assert type(one) is type(other)


class TestScope:
    """Which clients share what is in memory."""

    def test_clients_of_equal_scope_share(self, bare, calls):
        """A second client of the same account and region reads from memory."""
        bare.create_secret(Name="a", SecretString="1")
        cached(bare).get_secret_value(SecretId="a")
        del calls[:]
        cached(boto3.client("secretsmanager")).get_secret_value(SecretId="a")

        assert [] == calls

    @pytest.mark.parametrize(
        "other",
        [
            {"region_name": "us-east-1"},
            {"aws_access_key_id": "other", "aws_secret_access_key": "other"},
        ],
    )
    def test_other_credentials_or_regions_do_not(self, bare, calls, other):
        """Another region or another key is another read."""
        bare.create_secret(Name="a", SecretString="1")
        cached(bare).get_secret_value(SecretId="a")
        client = cached(boto3.client("secretsmanager", **other))
        del calls[:]
        with contextlib.suppress(ClientError):
            client.get_secret_value(SecretId="a")

        assert ["GetSecretValue"] == calls

    def test_memory_does_not_hold_the_client(self, bare):
        """A client that the program lets go is gone, with all that boto3 keeps for it."""
        bare.create_secret(Name="a", SecretString="1")
        held = []
        for number in range(3):
            keys = {
                "aws_access_key_id": f"k{number}",
                "aws_secret_access_key": "x",
            }
            client = cached(boto3.Session(**keys).client("secretsmanager"))
            client.get_secret_value(SecretId="a")
            client.batch_get_secret_value(SecretIdList=["a"])
            held.append(weakref.ref(client))
        del client
        gc.collect()

        assert [None] * 3 == [reference() for reference in held]

    @pytest.mark.parametrize("way", ["session", "client"])
    def test_memory_does_not_hold_what_a_handle_asks_through(self, bare, way):
        """A session, or a client, goes with the handle that it was given to."""
        bare.create_secret(Name="a", SecretString="1")
        session = boto3.Session("k", "x")
        given = session if way == "session" else session.client("secretsmanager")
        value = Secret("a", **{way: given}).value
        held = weakref.ref(given)
        del session, given
        gc.collect()

        assert ("1", None) == (value, held())

    def test_refresh_asks_a_client_that_is_there(self, bare, calls, monkeypatch):
        """Of two clients of equal scope the one that is left refreshes for itself."""
        worker = types.SimpleNamespace(wake=list, close=list)  # the test does its work
        monkeypatch.setattr(store.loader, "worker", worker)
        bare.create_secret(Name="a", SecretString="1")
        first, second = cached(bare), cached(boto3.client("secretsmanager"))
        refreshed = []
        with FakeClock() as clock:
            first.get_secret_value(SecretId="a")
            del first
            gc.collect()
            bare.put_secret_value(SecretId="a", SecretString="2")
            clock.advance(280)
            del calls[:]
            second.get_secret_value(SecretId="a")
            store.loader.refresh_due()
            refreshed += calls
            found = second.get_secret_value(SecretId="a")

        assert (["GetSecretValue"], "2") == (refreshed, found["SecretString"])
        assert refreshed == calls

    def test_what_handlers_make_of_an_answer_is_for_their_clients(self, bare):
        """An answer that a handler has changed reaches no client without the handler."""

        def redact(parsed, **_):
            parsed["SecretString"] = "hidden"

        bare.create_secret(Name="a", SecretString="1")
        changed = boto3.client("secretsmanager")
        changed.meta.events.register(
            "after-call.secrets-manager.GetSecretValue", redact
        )
        changed = cached(changed)
        found = [
            client.get_secret_value(SecretId="a")["SecretString"]
            for client in (changed, cached(bare), changed, cached(bare))
        ]

        assert ["hidden", "1", "hidden", "1"] == found
        assert "1" == Secret("a").value

    @pytest.mark.parametrize(
        "make",
        [
            lambda name: functools.partial(mark, name),
            lambda name: functools.partial(mark, name=name),
            lambda name: lambda parsed, **_: mark(name, parsed),
            lambda name: lambda parsed, by=name, **_: mark(by, parsed),
            lambda name: MARKS[name].mark,
            lambda name: {"one": mark, "other": MARKS["one"].mark}[name],
        ],
    )
    def test_clients_with_handlers_that_do_the_same_share(self, bare, calls, make):
        """Tracers make handlers for each client: equal ones change nothing else."""
        bare.create_secret(Name="a", SecretString="1")

        def read(name):
            client = boto3.client("secretsmanager")
            client.meta.events.register("after-call", make(name))
            cached(client).get_secret_value(SecretId="a")

        del calls[:]
        for name in ("one", "one", "other", "one"):
            read(name)
            gc.collect()

        assert ["GetSecretValue"] * 2 == calls

    def test_handlers_that_change_the_request_are_for_their_clients(self, bare):
        """What a handler asks for instead is the answer of no client without it."""

        def below_prod(params, **_):
            params["body"] = params["body"].replace(b'"a"', b'"prod/a"')

        for name in ("a", "prod/a"):
            bare.create_secret(Name=name, SecretString=name)
        other = boto3.client("secretsmanager")
        other.meta.events.register(
            "before-call.secrets-manager.GetSecretValue", below_prod
        )
        clients = cached(other), cached(bare)
        found = [
            [client.get_secret_value(SecretId="a")["SecretString"] for _ in "12"]
            for client in clients
        ]

        assert [["prod/a"] * 2, ["a"] * 2] == found

    @pytest.mark.parametrize("event", ["before-send", "after-call"])
    def test_handler_that_comes_later_is_heard(self, bare, event):
        """A handler registered after a read is asked by the next one, and until it goes."""
        name = f"{event}.secrets-manager.GetSecretValue"

        def answer(**arguments):
            if "parsed" in arguments:
                arguments["parsed"]["SecretString"] = "other"
                return None
            response = AWSResponse("https://aws", 200, {}, None)
            response._content = b'{"SecretString": "other"}'
            return response

        bare.create_secret(Name="a", SecretString="1")
        client = cached(bare)

        def read():
            return client.get_secret_value(SecretId="a")["SecretString"]

        before = [read(), read()]
        client.meta.events.register_first(name, answer)
        meanwhile = [read(), read()]
        client.meta.events.unregister(name, answer)

        assert (["1"] * 2, ["other"] * 2, "1") == (before, meanwhile, read())

    def test_own_reads_pass_by_a_cached_client(self, bare, calls):
        """A handle with client= keeps its own books, and asks the client once."""
        bare.create_secret(Name="a", SecretString="1")
        client = cached(bare)
        del calls[:]
        handle = Secret("a", client=client)
        values = [handle.value for _ in range(3)]

        assert (["1"] * 3, ["GetSecretValue"]) == (values, calls)


class TestWrites:
    """A write through a cached client drops what it changes."""

    @pytest.mark.parametrize("form", ["name", "arn", "partial"])
    def test_write_by_any_form_is_seen_by_every_form(self, bare, form):
        """Name, ARN and partial ARN are dropped by a write to any of them."""
        arn = bare.create_secret(Name="a", SecretString="1")["ARN"]
        client = cached(bare)
        names = {"name": "a", "arn": arn, "partial": arn[:-7]}
        for name in names.values():
            client.get_secret_value(SecretId=name)
        client.put_secret_value(SecretId=names[form], SecretString="2")

        assert ["2"] * 3 == [
            client.get_secret_value(SecretId=name)["SecretString"]
            for name in names.values()
        ]

    def test_write_drops_it_for_handles_and_functions(self, bare, monkeypatch):
        """What a handle remembers is dropped by a client's write, too."""
        monkeypatch.setenv("LAMBDA_EXT_TRANSPORT", "boto3")
        bare.create_secret(Name="a", SecretString="1")
        handle = Secret("a")
        before = (handle.value, get_secret("a"))
        cached(bare).put_secret_value(SecretId="a", SecretString="2")

        assert (("1", "1"), ("2", "2")) == (before, (handle.value, get_secret("a")))

    def test_parameters(self, ssm):
        """Put, label and delete are seen at once, also below a path."""
        client = cached(ssm)
        client.put_parameter(Name="/p/a", Value="1", Type="String")

        def state():
            page = client.get_parameters_by_path(Path="/p")
            return client.get_parameter(Name="/p/a")["Parameter"]["Value"], [
                each["Value"] for each in page["Parameters"]
            ]

        states = [state(), state()]
        client.put_parameter(Name="/p/a", Value="2", Overwrite=True)
        states.append(state())
        client.delete_parameter(Name="/p/a")

        assert [("1", ["1"]), ("1", ["1"]), ("2", ["2"])] == states
        with pytest.raises(ClientError):
            client.get_parameter(Name="/p/a")
        assert [] == client.get_parameters_by_path(Path="/p")["Parameters"]

    def test_parameter_with_and_without_a_slash(self, ssm):
        """ "x" and "/x" have one ARN: a write to either drops both."""
        ssm.put_parameter(Name="x", Value="1", Type="String")
        client = cached(ssm)
        for name in ("x", "/x"):
            client.get_parameter(Name=name)
        client.put_parameter(Name="x", Value="2", Type="String", Overwrite=True)

        assert ["2"] * 2 == [
            client.get_parameter(Name=name)["Parameter"]["Value"]
            for name in ("x", "/x")
        ]

    @pytest.mark.parametrize("operation", ["replicate", "remove"])
    def test_replicas(self, bare, calls, operation):
        """What replaces or removes the replicas of a secret drops what was read there."""
        bare.create_secret(
            Name="a", SecretString="1", AddReplicaRegions=[{"Region": "us-east-1"}]
        )
        there = cached(boto3.client("secretsmanager", region_name="us-east-1"))
        there.get_secret_value(SecretId="a")
        here = cached(bare)
        with contextlib.suppress(ClientError):
            if operation == "remove":
                here.remove_regions_from_replication(
                    SecretId="a", RemoveReplicaRegions=["us-east-1"]
                )
            else:
                here.replicate_secret_to_regions(
                    SecretId="a",
                    AddReplicaRegions=[{"Region": "us-east-1"}],
                    ForceOverwriteReplicaSecret=True,
                )
        del calls[:]
        with contextlib.suppress(ClientError):
            there.get_secret_value(SecretId="a")

        assert ["GetSecretValue"] == calls

    @pytest.mark.parametrize(
        "event", ["provide-client-params", "before-parameter-build", "before-call"]
    )
    def test_write_of_a_client_with_handlers_is_seen(self, bare, event):
        """A client that is not served itself drops what it writes for the others."""
        bare.create_secret(Name="a", SecretString="1")
        reader, writer = cached(bare), cached(boto3.client("secretsmanager"))
        writer.meta.events.register(f"{event}.secrets-manager", lambda **_: None)
        before = reader.get_secret_value(SecretId="a")["SecretString"]
        writer.put_secret_value(SecretId="a", SecretString="2")
        after = reader.get_secret_value(SecretId="a")["SecretString"]

        assert ("1", "2") == (before, after)

    def test_stubbed_write_drops_nothing(self, bare, calls):
        """What does not reach AWS changes nothing that is remembered."""
        bare.create_secret(Name="a", SecretString="1")
        reader, writer = cached(bare), cached(boto3.client("secretsmanager"))
        reader.get_secret_value(SecretId="a")
        del calls[:]
        with Stubber(writer) as stubber:
            stubber.add_response("put_secret_value", {})
            writer.put_secret_value(SecretId="a", SecretString="2")
        reader.get_secret_value(SecretId="a")

        assert [] == calls

    def test_stand_in_may_return_anything_for_a_write(self, bare, monkeypatch):
        """A mock of botocore's method answers a write as the bare client would."""
        client = cached(bare)
        monkeypatch.setattr(
            botocore.client.BaseClient, "_make_api_call", lambda *_: "anything"
        )

        assert "anything" == client.put_secret_value(SecretId="a", SecretString="2")

    def test_refused_write_drops_it_too(self, bare, calls):
        """Whether a write that failed has changed something, only AWS knows."""
        bare.create_secret(Name="a", SecretString="1")
        client = cached(bare)
        client.get_secret_value(SecretId="a")
        with pytest.raises(ClientError):
            client.create_secret(Name="a", SecretString="2")
        del calls[:]
        client.get_secret_value(SecretId="a")

        assert ["GetSecretValue"] == calls


class TestWireRule:
    """Recorded answers are invisible to the cache, and it to them."""

    def test_stubbed_answers_are_not_kept(self, bare):
        """Each call takes the next recorded answer, and none outlives the stub."""
        bare.create_secret(Name="a", SecretString="real")
        client = cached(bare)
        with Stubber(client) as stub:
            for text in ("first", "second"):
                stub.add_response(
                    "get_secret_value", {**RESPONSE, "SecretString": text}
                )
            stubbed = [
                client.get_secret_value(SecretId="a")["SecretString"] for _ in range(2)
            ]

        assert ["first", "second"] == stubbed
        assert "real" == client.get_secret_value(SecretId="a")["SecretString"]

    def test_stub_after_a_read_from_the_wire_is_heard(self, bare):
        """What is in memory does not answer in the place of a recorded answer."""
        bare.create_secret(Name="a", SecretString="real")
        client = cached(bare)
        for _ in range(2):
            client.get_secret_value(SecretId="a")
        with Stubber(client) as stub:
            stub.add_response("get_secret_value", RESPONSE)
            stub.add_client_error("get_secret_value", "AccessDeniedException")
            value = client.get_secret_value(SecretId="a")["SecretString"]
            with pytest.raises(ClientError):
                client.get_secret_value(SecretId="a")
            stub.assert_no_pending_responses()

        assert "recorded" == value
        assert "real" == client.get_secret_value(SecretId="a")["SecretString"]

    def test_stub_before_the_client_was_wrapped(self, bare):
        """A stub that was active when the client was wrapped stays in charge."""
        stub = Stubber(bare)
        stub.activate()
        for text in ("first", "second"):
            stub.add_response("get_secret_value", {**RESPONSE, "SecretString": text})
        client = cached(bare)

        assert ["first", "second"] == [
            client.get_secret_value(SecretId="a")["SecretString"] for _ in range(2)
        ]

    def test_recording_in_the_place_of_a_former_one_is_heard(self, bare, calls):
        """A handler that is gone since the client was wrapped vouches for no later one."""
        event = "before-call.secrets-manager"

        def recording(number):
            return lambda **_: (AWSResponse("", 200, {}, None), {"Name": number})

        bare.create_secret(Name="a", SecretString="1")
        reader = cached(bare)
        reader.get_secret_value(SecretId="a")
        other = boto3.client("secretsmanager")
        handler = recording("first")
        other.meta.events.register(event, handler)
        writer = cached(other)
        other.meta.events.unregister(event, handler)
        del handler, calls[:]
        for number in range(20):  # an object may get the address of one that is gone
            handler = recording(str(number))
            other.meta.events.register(event, handler)
            answers = [
                writer.get_secret_value(SecretId="a"),
                writer.put_secret_value(SecretId="a", SecretString="2"),
            ]
            other.meta.events.unregister(event, handler)
            del handler

            assert [{"Name": str(number)}] * 2 == answers
        reader.get_secret_value(SecretId="a")

        assert [] == calls

    def test_mock_of_botocores_method_is_called(self, bare, monkeypatch):
        """A stand-in for _make_api_call, as tests put it there, answers each call."""
        bare.create_secret(Name="a", SecretString="real")
        client = cached(bare)
        for _ in range(2):
            client.get_secret_value(SecretId="a")
        answers = iter(["first", "second"])
        monkeypatch.setattr(
            botocore.client.BaseClient,
            "_make_api_call",
            lambda self, operation, parameters: {"SecretString": next(answers)},
        )

        assert ["first", "second"] == [
            client.get_secret_value(SecretId="a")["SecretString"] for _ in range(2)
        ]

    def test_two_mocks_share_nothing(self):
        """The same name in two successive mocks has the value of each."""
        found = []
        for text in ("first", "second"):
            with mock_aws():
                bare = boto3.client("secretsmanager")
                bare.create_secret(Name="a", SecretString=text)
                client = cached(bare)
                found += [
                    client.get_secret_value(SecretId="a")["SecretString"]
                    for _ in range(2)
                ]

        assert ["first", "first", "second", "second"] == found

    def test_one_client_in_two_mocks(self):
        """A client that outlives a mock forgets what it was told there."""
        client = cached(boto3.client("secretsmanager"))
        found = []
        for text in ("first", "second"):
            with mock_aws():
                boto3.client("secretsmanager").create_secret(
                    Name="a", SecretString=text
                )
                found += [
                    client.get_secret_value(SecretId="a")["SecretString"]
                    for _ in range(2)
                ]

        assert ["first", "first", "second", "second"] == found

    def test_instrumentation_does_not_turn_it_off(self, bare, calls, monkeypatch):
        """What wraps botocore's method, and says so, sees the misses."""
        bare.create_secret(Name="a", SecretString="1")
        client = cached(bare)
        seen = []
        former = botocore.client.BaseClient._make_api_call

        def _make_api_call(self, operation, parameters):
            seen.append(operation)
            return former(self, operation, parameters)

        _make_api_call.__wrapped__ = former
        monkeypatch.setattr(
            botocore.client.BaseClient, "_make_api_call", _make_api_call
        )
        del calls[:]
        for _ in range(3):
            client.get_secret_value(SecretId="a")

        assert (["GetSecretValue"], ["GetSecretValue"]) == (seen, calls)

    @pytest.mark.parametrize("layers", [1, 2])
    def test_instrumentation_that_was_there_first_does_not_either(
        self, bare, calls, monkeypatch, layers
    ):
        """Wrapped by wrapt, as tracers do it, before the client is; and when that goes."""
        bare.create_secret(Name="a", SecretString="1")
        base, name, seen = botocore.client.BaseClient, "_make_api_call", []
        former = base._make_api_call
        monkeypatch.setattr(base, name, former)  # goes back in the end

        def trace(wrapped, instance, args, kwargs):
            seen.append(args[0])
            return wrapped(*args, **kwargs)

        for _ in range(layers):
            wrapt.wrap_function_wrapper(base, name, trace)
        client = cached(boto3.client("secretsmanager"))
        del calls[:]
        for _ in range(3):
            client.get_secret_value(SecretId="a")
        base._make_api_call = former
        response = client.get_secret_value(SecretId="a")

        assert (["GetSecretValue"] * layers, ["GetSecretValue"]) == (seen, calls)
        assert response[METADATA]["LambdaExtCached"]

    def test_stand_in_under_instrumentation_is_called(self, bare, monkeypatch):
        """What a test puts in the place of an instrumented method answers."""
        base, name = botocore.client.BaseClient, "_make_api_call"
        monkeypatch.setattr(base, name, base._make_api_call)
        wrapt.wrap_function_wrapper(base, name, lambda w, _, a, k: w(*a, **k))
        bare.create_secret(Name="a", SecretString="1")
        client = cached(boto3.client("secretsmanager"))
        for _ in range(2):
            client.get_secret_value(SecretId="a")
        monkeypatch.setattr(base, name, lambda *_: {"SecretString": "stand-in"})

        assert "stand-in" == client.get_secret_value(SecretId="a")["SecretString"]


class TestSnapshot:
    """What is left of values when a snapshot is taken."""

    def test_no_value_and_no_context_is_left(self, bare):
        """Reads of every kind leave nothing that a snapshot would hold."""
        held = contextvars.ContextVar("held")
        held.set(marker := Marker())
        reference = weakref.ref(marker)
        for name in "ab":
            bare.create_secret(Name=name, SecretString=f"VALUE-{name}")
        client = cached(bare)
        for _ in range(2):
            client.get_secret_value(SecretId="a")
            client.batch_get_secret_value(SecretIdList=["a", "b"])
        phases.call(phases.SNAPSHOT)
        state = mixin._states[type(client)]
        texts = [
            each
            for each in reachable(state)
            if isinstance(each, str) and each.startswith("VALUE-")
        ]
        held.set(None)
        del marker
        gc.collect()

        assert ([], None) == (texts, reference())


def mark(name=None, parsed=None, **_):
    """Handle an answer, without doing anything."""


class Marks:
    """An object with a handler."""

    def __init__(self, name):
        self.name = name

    def mark(self, **_):
        """Do as the function."""


MARKS = {name: Marks(name) for name in ("one", "other")}


class Marker:
    """Something of a request's."""


def reachable(root, depth=12):
    """Return what *root* holds, by attributes and in containers, modules left out."""
    seen, waiting = {}, [(root, 0)]
    while waiting:
        each, level = waiting.pop()
        if id(each) in seen or level > depth:
            continue
        if isinstance(each, (type, types.ModuleType, types.FunctionType)):
            continue
        seen[id(each)] = each
        waiting += [(part, level + 1) for part in gc.get_referents(each)]
    return seen.values()


class TestStaleIfError:
    """Freshness is the loader's, for clients as for handles."""

    def test_old_value_serves_while_aws_throttles(self, bare, monkeypatch):
        """A throttled read returns what is remembered, marked as such."""
        with FakeClock() as clock:
            bare.create_secret(Name="a", SecretString="1")
            client = cached(bare, max_age=60, max_stale=600)
            client.get_secret_value(SecretId="a")
            clock.advance(61)

            def throttled(self, *args):
                response = {"Error": {"Code": "ThrottlingException", "Message": ""}}
                raise ClientError(response, "GetSecretValue")

            monkeypatch.setattr(botocore.client.BaseClient, "_make_request", throttled)
            response = client.get_secret_value(SecretId="a")

        assert ("1", True) == (
            response["SecretString"],
            response[METADATA]["LambdaExtCached"],
        )

    test_old_value_serves_while_aws_throttles = pytest.mark.logs(
        test_old_value_serves_while_aws_throttles
    )


class TestTallies:
    """tallies.counters()"""

    def test_say_what_became_of_calls(self, bare):
        """Hits, misses, passed, stored and invalidated are counted by operation."""
        client = cached(bare)
        client.create_secret(Name="a", SecretString="1")
        for _ in range(3):
            client.get_secret_value(SecretId="a")
        client.describe_secret(SecretId="a")
        client.put_secret_value(SecretId="a", SecretString="2")
        counted = tallies.counters()

        assert {
            "hits": 2,
            "misses": 1,
            "passed": 0,
            "stored": 1,
            "invalidated": 0,
        } == counted["GetSecretValue"]
        assert 1 == counted["DescribeSecret"]["passed"]
        assert 1 == counted["PutSecretValue"]["invalidated"]


def test_get_parameter_of_this_library_is_no_part_of_it():
    """The names do not clash: functions of the library stay what they are."""
    assert get_parameter.__module__.endswith("getters")
    assert mixin.cached is cached
