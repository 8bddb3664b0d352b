"""client(): what is raised is botocore's, raised without boto3."""

from __future__ import annotations

import pickle
import ssl

import boto3
import botocore.session
import pytest
from botocore import exceptions as botocore_exceptions
from botocore.config import Config
from helpers import eventually, python, run_threads
from wire import Wire, authority, cut, error, failing, refusing, reset, response, vanish

import lambda_ext
from lambda_ext.aws import connections, light, retries, signing
from lambda_ext.dropin import botocore_errors
from lambda_ext.dropin.light_client import client
from lambda_ext.values.handles import Secret

ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:{}-AbCdEf"
SECRET = ("secretsmanager", "get_secret_value", {"SecretId": "a"})
SECRETS = ("secretsmanager", "batch_get_secret_value", {"SecretIdList": ["a", "b"]})
PARAMETER = ("ssm", "get_parameter", {"Name": "/a"})
PARAMETERS = ("ssm", "get_parameters", {"Names": ["/a"], "WithDecryption": True})
PATH = ("ssm", "get_parameters_by_path", {"Path": "/a"})
READS = [SECRET, SECRETS, PARAMETER, PARAMETERS, PATH]
ATTEMPTS = 8  # of a throttled call, in both


def answer(request):
    """Answer as AWS does, with values for all names but "missing"."""
    asked = request.parameters
    if request.operation == "GetSecretValue":
        name = asked["SecretId"]
        if name == "missing":
            return error("ResourceNotFoundException", "there is none")
        return {"ARN": ARN.format(name), "Name": name, "VersionId": "v" * 32,
                "SecretString": name, "VersionStages": ["AWSCURRENT"]}  # fmt: skip
    if request.operation == "BatchGetSecretValue":
        found = [name for name in asked["SecretIdList"] if name != "missing"]
        missing = [name for name in asked["SecretIdList"] if name == "missing"]
        return {
            "SecretValues": [
                {"ARN": ARN.format(name), "Name": name, "VersionId": "v" * 32,
                 "SecretString": name, "VersionStages": ["AWSCURRENT"],
                 "CreatedDate": 1.5e9}
                for name in found
            ],
            "Errors": [
                {"SecretId": name, "ErrorCode": "ResourceNotFoundException",
                 "Message": "there is none"}
                for name in missing
            ],
        }  # fmt: skip
    if request.operation == "GetParameters":
        return {
            "Parameters": [
                {"Name": name, "Value": name, "Version": 1, "Type": "String"}
                for name in asked["Names"] if name != "missing"
            ],
            "InvalidParameters": [n for n in asked["Names"] if n == "missing"],
        }  # fmt: skip
    raise AssertionError(request.operation)


@pytest.fixture(name="server")
def _server(monkeypatch):
    """A server that both clients ask, which make no pauses."""
    monkeypatch.setenv("LAMBDA_EXT_TRANSPORT", "light")  # moto is loaded in here
    monkeypatch.setattr(retries, "sleep", lambda seconds: None)
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda seconds: None)
    with Wire(answer) as wire:
        monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
        yield wire
    light.reset()
    signing.reset()


def raised(called, method, parameters):
    """Return the exception that a call of a client raises."""
    with pytest.raises(Exception) as caught:
        getattr(called, method)(**parameters)
    return caught.value


def boto3s(service, attempts=ATTEMPTS, **options):
    """Return boto3's client, which tries as often as the light one."""
    retry = {"mode": "legacy", "total_max_attempts": attempts}
    return boto3.client(service, config=Config(retries=retry, **options))


def told(exc):
    """Return what a caller can see of an exception, without the date."""
    seen = {"type": type(exc), "args": exc.args, "text": str(exc), **vars(exc)}
    for attribute in ("request", "kwargs"):  # botocore's own request, its cause
        seen.pop(attribute, None)
    if "response" in seen and seen["response"] is not None:
        seen["response"]["ResponseMetadata"]["HTTPHeaders"].pop("date")
    copied = pickle.loads(pickle.dumps(exc))
    return {**seen, "copied": (type(copied), copied.args)}


REFUSALS = {
    "modelled": refusing("ResourceNotFoundException", "there is none"),
    "request id": refusing("ParameterNotFound", "", X_Amzn_RequestId="1-2"),
    "message with a capital": lambda peer, data: peer.send(
        response(400, {"__type": "ResourceNotFoundException", "Message": "none"})
    ),
    "two messages": lambda peer, data: peer.send(
        response(400, {"__type": "ValidationException", "Message": "A", "message": "b"})
    ),
    "null message": lambda peer, data: peer.send(
        response(400, {"__type": "ParameterNotFound", "message": None})
    ),
    "namespace": refusing("com.amazonaws.ssm#ParameterNotFound", "none"),
    "not in the model": refusing("UnrecognizedClientException", "bad token", 403),
    "denied": refusing("AccessDeniedException", "User: arn:aws:sts::1:x may not"),
    "more members": lambda peer, data: peer.send(
        response(400, {"__type": "ValidationException", "Message": "A",
                       "ReasonCode": "R", "Other": "x"})
    ),
    "no code": lambda peer, data: peer.send(response(418, {"message": "tea"})),
    "code in a header only": lambda peer, data: peer.send(
        response(400, {"message": "x"}, X_Amzn_ErrorType="ParameterNotFound")
    ),
    "no body": failing(400, b""),
    "redirect": lambda peer, data: peer.send(response(307, b"", Location="/x")),
}  # fmt: skip
PASSING = {
    "throttled": refusing("ThrottlingException", "Rate exceeded"),
    "throttled with members": lambda peer, data: peer.send(
        response(400, {"__type": "ThrottlingException", "message": "x", "Message": "y",
                       "QuotaCode": "Q", "ServiceCode": "S"})
    ),
}  # fmt: skip
BROKEN = {
    "internal": refusing("InternalServiceError", "oh", 500),
    "internal of ssm": refusing("InternalServerError", "oh", 500, X_Amzn_RequestId="1"),
    "a page": failing(503, b"<html>Service Unavailable</html>"),
    "nothing": failing(502, b""),
}


class TestRefusals:
    """What AWS answered, as botocore tells it."""

    @pytest.mark.parametrize("read", READS, ids=lambda read: read[1])
    @pytest.mark.parametrize("fault", sorted(REFUSALS))
    def test_it_is_boto3s_error(self, server, read, fault):
        """Type, arguments, text, response and copy are boto3's, after one request."""
        service, method, parameters = read
        server.fault = REFUSALS[fault]
        expected = raised(boto3s(service), method, parameters)
        server.requests.clear()
        light_client = client(service)
        found = raised(light_client, method, parameters)

        assert told(expected) == told(found)
        assert (1, None) == (len(server.requests), light_client._real)
        assert (None, None) == (found.__cause__, found.__context__)

    @pytest.mark.parametrize("read", READS, ids=lambda read: read[1])
    @pytest.mark.parametrize("fault", sorted(PASSING))
    def test_what_was_retried_says_so(self, server, read, fault):
        """The text and the response count the retries that were made."""
        service, method, parameters = read
        server.fault = PASSING[fault]
        expected = raised(boto3s(service), method, parameters)
        found = raised(client(service), method, parameters)

        assert told(expected) == told(found)
        assert f"(reached max retries: {ATTEMPTS - 1})" in str(found)

    @pytest.mark.parametrize("read", [SECRET, PARAMETERS], ids=lambda read: read[1])
    @pytest.mark.parametrize("fault", sorted(BROKEN))
    def test_what_is_broken_is_retried_less(self, server, read, fault):
        """Other passing failures are boto3's, too, after as many attempts as were made."""
        service, method, parameters = read
        server.fault = BROKEN[fault]
        expected = raised(boto3s(service, retries.ATTEMPTS), method, parameters)
        found = raised(client(service), method, parameters)

        assert told(expected) == told(found)

    @pytest.mark.parametrize("read", READS, ids=lambda read: read[1])
    def test_a_body_that_is_no_json_is_left_to_boto3(self, server, read):
        """botocore takes the body for a message; ours is kept nowhere."""
        service, method, parameters = read
        server.fault = failing(403, b"sesame")
        expected = raised(boto3s(service), method, parameters)

        assert told(expected) == told(raised(client(service), method, parameters))

    def test_an_unknown_code_is_left_to_boto3(self, server, monkeypatch):
        """Without botocore's model in a file, what it names is boto3's to judge."""
        monkeypatch.setattr(botocore_errors, "_models", {"ssm": None})
        service, method, parameters = PARAMETER
        server.fault = refusing("TooManyUpdates", "slower")
        expected = raised(boto3s(service), method, parameters)
        light_client = client(service)
        found = raised(light_client, method, parameters)

        assert told(expected) == told(found)
        assert "TooManyUpdates" == type(found).__name__
        assert light_client._real is not None

    def test_an_error_of_another_operation(self, server):
        """What no read is documented to raise is looked up in botocore's own file."""
        service, method, parameters = PARAMETER
        server.fault = refusing("TooManyUpdates", "slower")
        expected = raised(boto3s(service), method, parameters)
        light_client = client(service)
        found = raised(light_client, method, parameters)

        assert told(expected) == told(found)
        assert ("TooManyUpdates", None) == (type(found).__name__, light_client._real)

    def test_a_code_may_be_followed_by_a_url(self, server):
        """What stands after a colon is no part of the code, as in new versions of botocore."""
        server.fault = refusing("a.b#ParameterNotFound:http://x/", "none")
        found = raised(client("ssm"), "get_parameter", {"Name": "/a"})

        assert "ParameterNotFound" == found.response["Error"]["Code"]

    def test_handles_keep_no_message(self, server):
        """The error of a handle shows nothing that it does not say in its text."""
        server.fault = refusing("", "sesame", 418)
        caught = raised(Secret("a"), "get", {})

        assert "sesame" not in repr(caught) + repr(vars(caught))

    def test_the_table_is_the_models(self):
        """Each error of a read is known with its members, and no other name is."""
        session = botocore.session.get_session()
        reads = {
            "secretsmanager": ["GetSecretValue", "BatchGetSecretValue"],
            "ssm": ["GetParameter", "GetParameters", "GetParametersByPath"],
        }
        for service, operations in reads.items():
            model = session.get_service_model(service)
            known = botocore_errors.MODELLED[service]
            modelled = {shape.name: shape for shape in model.error_shapes}
            raised = {
                shape.name
                for operation in operations
                for shape in model.operation_model(operation).error_shapes
            }

            assert set() == raised - set(known)
            assert {
                name: tuple(shape.members) for name, shape in modelled.items()
            } == botocore_errors._model(service)
            assert set() == {
                name for name in known
                if name in modelled and set(known[name]) != set(modelled[name].members)
            }  # fmt: skip


class TestUnreachable:
    """What keeps AWS from being asked, as botocore tells it."""

    def test_nothing_listens(self, monkeypatch, server):
        """A refused connection is an EndpointConnectionError."""
        with Wire() as closed:
            url = closed.url
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        service, method, parameters = SECRET
        expected = raised(boto3s(service), method, parameters)
        light_client = client(service)
        found = raised(light_client, method, parameters)

        assert told(expected) == told(found)
        assert (type(found), light_client._real) == (
            botocore_exceptions.EndpointConnectionError,
            None,
        )

    @pytest.mark.parametrize(
        "fault", [vanish, reset, cut(10)], ids=["vanish", "reset", "cut"]
    )
    def test_the_connection_is_closed(self, server, fault):
        """A response that does not come is a ConnectionClosedError."""
        server.fault = fault
        service, method, parameters = SECRET
        expected = raised(boto3s(service), method, parameters)
        found = raised(client(service), method, parameters)

        assert told(expected) == told(found)
        assert botocore_exceptions.ConnectionClosedError is type(found)

    def test_the_response_is_cut(self, server):
        """Half a body, for which botocore may return half a response, is one, too."""
        server.fault = cut(150)
        found = raised(client("secretsmanager"), "get_secret_value", {"SecretId": "a"})

        assert botocore_exceptions.ConnectionClosedError is type(found)

    def test_no_answer_in_time(self, server, monkeypatch):
        """A silent server is a ReadTimeoutError."""
        monkeypatch.setattr(retries, "READ_S", 0.05)
        server.fault = lambda peer, data: peer.wire.stopped.wait(5.0)
        service, method, parameters = PARAMETER
        expected = raised(boto3s(service, 1, read_timeout=0.05), method, parameters)
        found = raised(client(service), method, parameters)

        assert told(expected) == told(found)
        assert botocore_exceptions.ReadTimeoutError is type(found)

    def test_no_connection_in_time(self, server, monkeypatch):
        """A connection that does not come about is a ConnectTimeoutError."""

        def connected(addresses, ends_at):
            raise TimeoutError("timed out")

        monkeypatch.setattr(connections, "_connected", connected)
        found = raised(client("ssm"), "get_parameter", {"Name": "/a"})
        expected = botocore_exceptions.ConnectTimeoutError(
            endpoint_url=server.url + "/", error="timed out"
        )

        assert (type(expected), str(expected)) == (type(found), str(found))

    def test_a_certificate_is_not_trusted(self, server, monkeypatch):
        """A certificate that is refused is an SSLError."""
        with Wire(answer, tls=authority().server("127.0.0.1")) as wire:
            monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
            service, method, parameters = SECRET
            expected = raised(boto3s(service), method, parameters)
            found = raised(client(service), method, parameters)

        assert type(expected) is type(found)
        assert f"SSL validation failed for {wire.url}/" in str(found)
        assert isinstance(expected.kwargs["error"], Exception)
        assert isinstance(found.kwargs["error"], Exception)
        assert ssl.CERT_REQUIRED  # both verify

    def test_the_credentials_are_gone(self, server, monkeypatch):
        """Variables that are emptied later are a NoCredentialsError."""
        light_client = client("secretsmanager")
        light_client.get_secret_value(SecretId="a")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        expected = raised(
            boto3.Session().client("secretsmanager"), "get_secret_value", {"SecretId": "b"}
        )  # fmt: skip
        found = raised(light_client, "get_secret_value", {"SecretId": "b"})

        assert told(expected) == told(found)


class TestMemory:
    """What an error leaves behind."""

    def test_no_error_is_remembered(self, server):
        """Each failing read asks AWS, also after a handle has remembered the error."""
        light_client = client("secretsmanager")
        for _ in range(2):
            raised(light_client, "get_secret_value", {"SecretId": "missing"})
        with pytest.raises(LookupError):
            _ = Secret("missing").value
        raised(light_client, "get_secret_value", {"SecretId": "missing"})
        server.answer = answer_as_found
        response = light_client.get_secret_value(SecretId="missing")

        assert "now there" == response["SecretString"]

    def test_no_error_is_remembered_for_a_handle(self, server):
        """What a client could not find a handle asks for, once it is there."""
        raised(client("secretsmanager"), "get_secret_value", {"SecretId": "missing"})
        server.answer = answer_as_found

        assert "now there" == Secret("missing").value

    def test_each_waiter_has_its_own(self, server):
        """Threads that wait for one call get an exception each, with own responses."""
        release = server.stopped.__class__()

        def held(peer, data):
            release.wait(30.0)
            peer.send(error("ResourceNotFoundException", "there is none"))

        server.fault = held
        light_client = client("secretsmanager")
        found = []

        def read(index):
            if index == 3:
                while not server.requests:
                    pass
                release.set()
                return
            found.append(raised(light_client, "get_secret_value", {"SecretId": "a"}))

        run_threads(4, read)
        for exc in found:
            exc.response["Error"].clear()

        assert 3 == len({id(exc) for exc in found})
        assert 3 == len({id(exc.response) for exc in found})

    def test_a_hundred_threads_are_one_call(self, server):
        """One request answers all that ask for one secret meanwhile."""
        release = server.stopped.__class__()
        light_client = client("secretsmanager")

        def held(peer, data):
            release.wait(30.0)
            peer.send(data())

        def read(index):
            if index == 0:
                eventually(lambda: lambda_ext.stats().values.misses == 99)
                release.set()
                return
            found.append(light_client.get_secret_value(SecretId="a")["SecretString"])

        server.fault = held
        found = []
        run_threads(100, read)

        assert ["a"] * 99 == found
        assert 1 == len(server.requests)

    def test_a_hit_becomes_an_error(self, server, time):
        """Past max_age AWS is asked, and what it refuses then is dead."""
        light_client = client("secretsmanager")
        light_client.get_secret_value(SecretId="a")
        light_client.get_secret_value(SecretId="a")
        time.advance(301)
        server.fault = refusing("ResourceNotFoundException", "gone")
        first = raised(light_client, "get_secret_value", {"SecretId": "a"})
        second = raised(light_client, "get_secret_value", {"SecretId": "a"})

        assert {"ResourceNotFoundException"} == {
            exc.response["Error"]["Code"] for exc in (first, second)
        }
        assert 3 == len(server.requests)

    @pytest.mark.logs
    def test_a_stale_response_serves_while_aws_throttles(self, server, time):
        """Within max_stale a response from memory takes the place of the error."""
        light_client = client("secretsmanager")
        light_client.get_secret_value(SecretId="a")
        time.advance(301)
        server.fault = refusing("ThrottlingException", "Rate exceeded")
        stale = light_client.get_secret_value(SecretId="a")
        time.advance(3601)
        found = raised(light_client, "get_secret_value", {"SecretId": "a"})

        assert stale["ResponseMetadata"]["LambdaExtCached"]
        assert "ThrottlingException" == found.response["Error"]["Code"]


def answer_as_found(request):
    """Answer as if the missing secret had been created meanwhile."""
    return {"ARN": ARN.format("missing"), "Name": "missing", "VersionId": "w" * 32,
            "SecretString": "now there", "VersionStages": ["AWSCURRENT"]}  # fmt: skip


class TestBatches:
    """Reads of many keys."""

    @pytest.mark.parametrize(
        ("service", "method", "parameters"),
        [
            ("secretsmanager", "batch_get_secret_value", {"SecretIdList": ["a", "missing"]}),
            ("secretsmanager", "batch_get_secret_value", {"SecretIdList": ["missing"]}),
            ("ssm", "get_parameters", {"Names": ["a", "missing"]}),
            ("ssm", "get_parameters", {"Names": ["missing"]}),
        ],
    )  # fmt: skip
    def test_what_is_missing_stands_in_the_response(
        self, server, service, method, parameters
    ):
        """A batch that lacks a value is no error, and no reason for boto3."""
        expected = getattr(boto3s(service), method)(**parameters)
        light_client = client(service)
        server.requests.clear()
        for _ in range(2):
            found = getattr(light_client, method)(**parameters)
            for each in (expected, found):
                each.pop("ResponseMetadata", None)

            assert expected == found
        assert (None, 2) == (light_client._real, len(server.requests))

    def test_one_denied_name_denies_the_batch(self, server):
        """GetParameters is asked for by itself, since its error is another's."""
        server.fault = refusing("AccessDeniedException", "not authorized")
        found = raised(client("ssm"), "get_parameters", {"Names": ["/a", "/b"]})

        assert "GetParameters" == found.operation_name
        assert ["GetParameters"] == [each.operation for each in server.requests]

    def test_refused_as_part_of_a_batch(self, server, time):
        """A single read whose key a batch has refused asks for its own error."""
        light_client = client("secretsmanager")
        for name in ("a", "missing"):
            server.answer = lambda request, name=name: {
                "ARN": ARN.format(name), "Name": name, "VersionId": "v" * 32,
                "SecretString": name,
            }  # fmt: skip
            light_client.get_secret_value(SecretId=name)
            light_client.get_secret_value(SecretId=name)
        server.answer = answer
        time.advance(301)
        found = raised(light_client, "get_secret_value", {"SecretId": "missing"})

        assert ("GetSecretValue", 400) == (
            found.operation_name,
            found.response["ResponseMetadata"]["HTTPStatusCode"],
        )
        assert light_client._real is None


PREPARED = """
import sys, lambda_ext
client = lambda_ext.client("secretsmanager")

def loaded():
    return sorted({"boto3", "botocore", "wrapt", "dateutil"} & set(sys.modules))

def caught(call, clause):
    try:
        call(SecretId="missing")
    except clause() as exc:
        return type(exc).__name__
"""


@pytest.mark.process
class TestClauses:
    """Which ``except`` clause finds which error, in each order of making them."""

    def run(self, code):
        """Return what *code* prints in a process of its own."""
        with Wire(answer) as wire:
            done = python(PREPARED + code, env={"AWS_ENDPOINT_URL": wire.url})
        assert "" == done.stderr
        return done.stdout.splitlines()

    def test_class_and_error_need_no_boto3(self):
        """client.exceptions and the error load botocore's exceptions alone."""
        assert ["ResourceNotFoundException", "['botocore']"] == self.run(
            "print(caught(client.get_secret_value,"
            " lambda: client.exceptions.ResourceNotFoundException))\n"
            "print(loaded())"
        )

    def test_bound_before_catches_after_boto3s_client_is_made(self):
        """A class that was looked up at first finds what boto3's client raises."""
        assert ["ResourceNotFoundException"] * 3 == self.run(
            "X = client.exceptions.ResourceNotFoundException\n"
            "client.meta\n"
            "assert client._real is not None\n"
            "print(caught(client.get_secret_value, lambda: X))\n"
            "print(caught(client.describe_secret, lambda: X))\n"
            "print(caught(client.get_secret_value,"
            " lambda: client.exceptions.ResourceNotFoundException))"
            .replace("client.describe_secret", "client._real.get_secret_value")
        )  # fmt: skip

    def test_classes_of_boto3s_default_session(self):
        """boto3.client(...).exceptions finds ours, made before, between or after."""
        assert ["ResourceNotFoundException"] * 3 == self.run(
            "def theirs():\n"
            "    import boto3\n"
            "    return boto3.client('secretsmanager').exceptions"
            ".ResourceNotFoundException\n"
            "print(caught(client.get_secret_value, theirs))\n"
            "X = theirs()\n"
            "print(caught(client.get_secret_value, lambda: X))\n"
            "import boto3\n"
            "boto3.setup_default_session()\n"
            "print(caught(client.get_secret_value, theirs))"
        )

    def test_classes_that_were_there_before_ours(self):
        """Those that the default session has made already are taken over."""
        assert ["ResourceNotFoundException", "True"] == self.run(
            "import boto3\n"
            "X = boto3.client('secretsmanager').exceptions.ResourceNotFoundException\n"
            "print(caught(client.get_secret_value, lambda: X))\n"
            "print(client.exceptions.ResourceNotFoundException is X)"
        )

    def test_classes_of_another_session_stay_what_they_were(self):
        """A class that another session has handed out goes on finding its errors."""
        assert ["ResourceNotFoundException"] * 2 == self.run(
            "import boto3\n"
            "other = boto3.Session()\n"
            "theirs = other.client('secretsmanager')\n"
            "X = theirs.exceptions.ResourceNotFoundException\n"
            "client.exceptions.ResourceNotFoundException\n"
            "other.client('secretsmanager').exceptions\n"
            "print(caught(theirs.get_secret_value, lambda: X))\n"
            "import botocore.exceptions\n"
            "print(caught(client.get_secret_value,"
            " lambda: botocore.exceptions.ClientError))"
        )

    def test_an_import_under_way_is_waited_for(self):
        """A class that is looked up while another thread imports boto3 is boto3's, too."""
        assert ["True"] * 3 == self.run(
            "import importlib.machinery, threading\n"
            "begun, go_on = threading.Event(), threading.Event()\n"
            "class Loader(importlib.machinery.SourceFileLoader):\n"
            "    def exec_module(self, module):\n"
            "        begun.set()\n"
            "        go_on.wait(30)\n"
            "        super().exec_module(module)\n"
            "class Finder:\n"
            "    def find_spec(name, path=None, target=None):\n"
            "        if name == 'botocore.errorfactory':\n"
            "            spec = importlib.machinery.PathFinder.find_spec(name, path)\n"
            "            spec.loader = Loader(name, spec.origin)\n"
            "            return spec\n"
            "sys.meta_path.insert(0, Finder)\n"
            "def theirs():\n"
            "    import boto3\n"
            "    found.append(boto3.client('secretsmanager').exceptions)\n"
            "def ours():\n"
            "    mine.append(client.exceptions.ResourceNotFoundException)\n"
            "found, mine = [], []\n"
            "threads = [threading.Thread(target=each) for each in (theirs, ours)]\n"
            "threads[0].start()\n"
            "print(begun.wait(30))\n"
            "threads[1].start()\n"
            "go_on.set()\n"
            "[each.join(30) for each in threads]\n"
            "print(len(mine) == len(found) == 1)\n"
            "print(found[0].ResourceNotFoundException is mine[0])"
        )

    def test_the_import_of_botocore_is_left_as_it_was(self):
        """Noticing the import leaves no finder, and the module's own loader."""
        assert ["SourceFileLoader SourceFileLoader []"] == self.run(
            "client.exceptions.ResourceNotFoundException\n"
            "import botocore.errorfactory as module\n"
            "print(type(module.__loader__).__name__,"
            " type(module.__spec__.loader).__name__,"
            " [each for each in sys.meta_path"
            " if type(each).__module__.startswith('lambda_ext')])"
        )


class TestExceptions:
    """The attribute ``exceptions``."""

    def test_names_and_codes(self, server):
        """ClientError, from_code and every class are boto3's; others are its error."""
        light_client = client("ssm")
        found, expected = light_client.exceptions, boto3.client("ssm").exceptions

        assert expected.ClientError is found.ClientError
        for name in (*botocore_errors.MODELLED["ssm"], "ParameterAlreadyExists"):
            assert getattr(expected, name) is getattr(found, name)
            assert expected.from_code(name) is found.from_code(name)
        assert expected.from_code("Nonsense") is found.from_code("Nonsense")
        assert light_client._real is None
        assert set(dir(expected)) == set(dir(found))
        with pytest.raises(AttributeError, match="Valid exceptions are: "):
            _ = found.Nonsense
