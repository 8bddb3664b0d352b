"""The AWS on loopback: what it answers, and what it writes down."""

from __future__ import annotations

import dataclasses
import email.message
import http.client
import os
import socket

import boto3
import botocore.exceptions
import pytest

from lambda_ext.local import aws_messages
from lambda_ext.local.aws_server import AwsServer, Parameter, Seed, SeedError
from lambda_ext.local.server import Answer, Request

SECRET = "hunter2-do-not-print"


@pytest.fixture
def server():
    """A server with something of everything."""
    seed = Seed(
        {"db": SECRET, "bin": b"\x00\x01"},
        {"/p": Parameter("20"), "/s": Parameter(SECRET, "SecureString")},
    )
    with AwsServer(seed=seed, region="eu-central-1") as running:
        yield running


def client(server, service):
    return boto3.client(service, endpoint_url=server.url, region_name=server.region)


@pytest.mark.process
class TestAnswers:
    """What clients get."""

    def test_seed_is_there(self, server):
        """What was seeded is what the clients get, text, binary and encrypted."""
        secrets, parameters = client(server, "secretsmanager"), client(server, "ssm")

        assert SECRET == secrets.get_secret_value(SecretId="db")["SecretString"]
        assert b"\x00\x01" == secrets.get_secret_value(SecretId="bin")["SecretBinary"]
        assert "20" == parameters.get_parameter(Name="/p")["Parameter"]["Value"]
        assert (
            SECRET
            == parameters.get_parameter(Name="/s", WithDecryption=True)["Parameter"][
                "Value"
            ]
        )

    def test_second_put_is_a_new_version(self, server):
        """put_secret on a name that is there rotates it."""
        server.put_secret("rotated", "one")
        server.put_secret("rotated", "two")
        got = client(server, "secretsmanager").get_secret_value(SecretId="rotated")

        assert "two" == got["SecretString"]

    def test_refused_seed_names_the_name_and_the_code(self, server):
        """A seed that AWS refuses is told by name and code, not by value."""
        with pytest.raises(SeedError) as caught:
            server.put_parameter("aws/reserved", Parameter(SECRET))

        assert "PutParameter was refused for 'aws/reserved'" in str(caught.value)
        assert SECRET not in str(caught.value)


@pytest.mark.process
class TestRecord:
    """What is written down about a call."""

    def test_seeding_is_not_recorded(self, server):
        """Only what came by HTTP counts as a call."""
        server.put_secret("unseen", "x")

        assert [] == server.calls

    def test_call_has_names_and_client_and_no_value(self, server):
        """A call is recorded with operation, names and client; no value is."""
        secrets = client(server, "secretsmanager")
        secrets.get_secret_value(SecretId="db")
        client(server, "ssm").get_parameters(Names=["/p", "/q"])

        assert [
            ("secretsmanager", "GetSecretValue", ("db",), 200, ()),
            ("ssm", "GetParameters", ("/p", "/q"), 200, ()),
        ] == [
            (c.service, c.operation, c.names, c.status, c.errors) for c in server.calls
        ]
        assert server.calls[0].agent.startswith("Boto3/")
        assert SECRET not in repr(server.calls)

    def test_value_that_is_written_is_not_recorded(self, server):
        """A call that carries a value is recorded without it."""
        client(server, "secretsmanager").put_secret_value(
            SecretId="db", SecretString=SECRET
        )

        assert ["PutSecretValue"] == [call.operation for call in server.calls]
        assert SECRET not in repr(server.calls)

    def test_error_code_is_recorded(self, server):
        """A call that failed has its error code."""
        with pytest.raises(botocore.exceptions.ClientError):
            client(server, "secretsmanager").get_secret_value(SecretId="none")

        assert [("ResourceNotFoundException",)] == [
            call.errors for call in server.calls
        ]

    def test_every_name_of_a_batch_is_recorded(self, server):
        """A batch is one call with all its names."""
        client(server, "secretsmanager").batch_get_secret_value(
            SecretIdList=["db", "none"]
        )

        assert [("db", "none")] == [call.names for call in server.calls]

    def test_other_services_are_named_by_path_or_action(self, server):
        """A service without X-Amz-Target is recorded by method and path."""
        s3 = boto3.client("s3", endpoint_url=server.url, region_name="us-east-1")
        s3.create_bucket(Bucket="bucket")
        s3.put_object(Bucket="bucket", Key="key", Body=SECRET.encode())

        assert ["PUT /bucket", "PUT /bucket/key"] == [
            call.operation for call in server.calls
        ]
        assert SECRET not in repr(server.calls)

    def test_request_without_sense_is_a_failure(self, server):
        """What moto cannot make sense of is answered and recorded as a failure."""
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
        scope = "x/1/eu-central-1/secretsmanager/aws4_request"
        connection.request(
            "POST",
            "/",
            b"not json",
            {
                "X-Amz-Target": "secretsmanager.GetSecretValue",
                "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}",
            },
        )
        answer = connection.getresponse()
        answer.read()
        connection.close()

        assert 500 == answer.status
        assert [("InternalFailure",)] == [call.errors for call in server.calls]


@pytest.mark.process
class TestMissingPackage:
    """A service for which moto needs more than the extra brings."""

    def test_answer_names_the_package_and_the_command(self, server, monkeypatch):
        """The failure says what to install."""

        def respond(*args):
            raise ModuleNotFoundError("No module named 'docker'", name="docker")

        monkeypatch.setattr(server.moto, "_respond", respond)
        status, _, body = ask(server, "POST", "/", b"{}", **GET_SECRET)

        assert 500 == status
        assert b"moto needs the package 'docker'" in body
        assert rb"pip install \"moto[server]\"" in body


@pytest.mark.process
class TestServer:
    """The server itself."""

    def test_connection_is_kept(self, server):
        """Two requests are answered on one connection."""
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
        sockets = set()
        for _ in range(2):
            connection.request("GET", "/")
            connection.getresponse().read()
            sockets.add(connection.sock)
        connection.close()

        assert 1 == len(sockets)
        assert None not in sockets

    def test_environment_leads_here_only(self, server):
        """The variables name this server, its region and worthless credentials."""
        environment = server.environment()

        assert server.url == environment["AWS_ENDPOINT_URL"]
        assert "eu-central-1" == environment["AWS_REGION"]
        assert "true" == environment["AWS_EC2_METADATA_DISABLED"]

    def test_profile_of_the_shell_is_set_aside(self, monkeypatch):
        """A profile that does not exist is no obstacle, and is back afterwards."""
        monkeypatch.setenv("AWS_PROFILE", "none-such")
        with AwsServer(seed=Seed({"db": "x"}, {"/p": Parameter("y")})):
            during = os.environ.get("AWS_PROFILE")

        assert (None, "none-such") == (during, os.environ["AWS_PROFILE"])

    def test_profile_is_back_when_the_start_failed(self, monkeypatch):
        """A seed that is refused leaves the environment as it was."""
        monkeypatch.setenv("AWS_PROFILE", "mine")
        with pytest.raises(SeedError):
            AwsServer(seed=Seed({}, {"aws/x": Parameter("y")})).__enter__()

        assert "mine" == os.environ["AWS_PROFILE"]

    def test_new_server_is_empty_and_the_old_one_gone(self):
        """A server starts without what an earlier one held, which is closed."""
        with AwsServer(seed=Seed({"old": "x"})) as first:
            address = first.url.removeprefix("http://").split(":")
        with AwsServer() as second:
            listed = client(second, "secretsmanager").list_secrets()["SecretList"]

        assert [] == listed
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((address[0], int(address[1])), 5)


GET_SECRET = {
    "X-Amz-Target": "secretsmanager.GetSecretValue",
    "Content-Type": "application/x-amz-json-1.1",
    "Authorization": "AWS4-HMAC-SHA256 Credential=a/20260101/eu-central-1/"
    "secretsmanager/aws4_request, SignedHeaders=host, Signature=x",
}


def ask(server, method, path, body=b"", **headers):
    """Send one request; return status, headers and body of the answer."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, named)
    answer = connection.getresponse()
    got = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return got


@pytest.mark.process
class TestStrangers:
    """A web page, and what is no API of AWS."""

    @pytest.mark.parametrize(
        "header",
        [
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Sec_Fetch_Site": "cross-site"},
            {"Host": "evil.example"},
            {"Host": "127.0.0.1.evil.example"},
            {"Host": "127.0.0.1:1"},
            {"Host": ""},
        ],
    )
    @pytest.mark.parametrize("method", ["POST", "OPTIONS"])
    def test_web_page_gets_no_answer(self, server, method, header):
        """Another origin or host gets 403, no header that shares, and no secret."""
        status, headers, body = ask(
            server, method, "/", b'{"SecretId": "db"}', **{**GET_SECRET, **header}
        )

        assert 403 == status
        assert [] == [n for n in headers if n.lower().startswith("access-control")]
        assert SECRET.encode() not in body
        assert [] == server.calls

    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST"])
    def test_own_host_is_answered(self, server, host):
        """The address by either of its names is answered, without sharing headers."""
        port = server.url.rpartition(":")[2]
        status, headers, body = ask(
            server, "POST", "/", b'{"SecretId": "db"}',
            **{**GET_SECRET, "Host": f"{host}:{port}"},
        )  # fmt: skip

        assert 200 == status
        assert SECRET.encode() in body
        assert [] == [n for n in headers if n.lower().startswith("access-control")]

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/moto-api/data.json"),
            ("GET", "/moto-api/"),
            ("GET", "//moto-api/data.json"),
            ("GET", "/%6Doto-api/data.json"),
            ("GET", "/Moto-API/data.json"),
            ("POST", "/moto-api/reset"),
            ("POST", "/moto-api/recorder/start-recording"),
            ("GET", "/favicon.ico"),
            ("GET", "/latest/meta-data/iam/security-credentials/"),
        ],
    )
    def test_api_of_moto_is_not_served(
        self, server, tmp_path, monkeypatch, method, path
    ):
        """moto's own API is refused, changes nothing and writes nothing."""
        monkeypatch.chdir(tmp_path)
        status, _, body = ask(server, method, path)
        after = ask(server, "POST", "/", b'{"SecretId": "db"}', **GET_SECRET)

        assert 403 == status
        assert SECRET.encode() not in body
        assert 200 == after[0]
        assert [] == os.listdir(tmp_path)


class Drummer:
    """A player of one service, which says what it was asked."""

    services = ("drums",)

    def __init__(self, fails=False):
        self.did = []
        self.fails = fails

    def start(self, seed):
        self.did.append(f"start {list(seed.secrets)}")
        if self.fails:
            raise SeedError("no drums")

    def stop(self):
        self.did.append("stop")

    def answer(self, request):
        self.did.append(request.path)
        return Answer(200, b"boom")


@pytest.mark.process
class TestPlayers:
    """Which player answers for which service."""

    def test_service_with_a_player_is_its_own(self):
        """A player gets the requests of its services, and the calls are recorded."""
        drummer = Drummer()
        with AwsServer(seed=Seed({"db": "x"}), players=[drummer]) as server:
            status, _, body = ask(
                server, "GET", "/roll?n=1", Authorization=SIGNED.format("drums")
            )
            ask(server, "POST", "/", b'{"SecretId": "db"}', **GET_SECRET)

        assert (200, b"boom") == (status, body)
        assert ["start ['db']", "/roll?n=1", "stop"] == drummer.did
        assert [("drums", "GET /roll"), ("secretsmanager", "GetSecretValue")] == [
            (call.service, call.operation) for call in server.calls
        ]

    def test_players_that_started_are_stopped_when_one_cannot(self):
        """A player that refuses the seed ends the start; the others are stopped."""
        first, second = Drummer(), Drummer(fails=True)
        with pytest.raises(SeedError, match="no drums"):
            AwsServer(players=[first, second]).__enter__()

        assert ["start []", "stop"] == first.did
        assert ["start []"] == second.did


def request(body=b"{}", **headers):
    """Return a request with these headers."""
    message = email.message.Message()
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    return Request("POST", "/path?query", message, body)


SIGNED = (
    "AWS4-HMAC-SHA256 Credential=id/20260101/us-east-1/{}/aws4_request, Signature=x"
)


class TestReading:
    """What is read off a request and an answer."""

    def test_action_of_a_form_is_the_operation(self):
        """A service of the query protocol is recorded by its Action."""
        form = request(
            b"Action=GetCallerIdentity&Version=2011-06-15",
            Content_Type="application/x-www-form-urlencoded; charset=utf-8",
            Authorization=SIGNED.format("sts"),
        )

        assert ("sts", "GetCallerIdentity") == (
            aws_messages.service(form),
            aws_messages.operation(form),
        )

    def test_form_without_action_is_named_by_its_path(self):
        """What says nothing about itself is named by method and path."""
        form = request(b"a=b", Content_Type="application/x-www-form-urlencoded")

        assert ("unknown", "POST /path") == (
            aws_messages.service(form),
            aws_messages.operation(form),
        )

    def test_operations_of_appconfig_are_named(self):
        """AppConfig's data plane is told by operation, and the profile by its parts."""
        body = (
            b'{"ApplicationIdentifier": "shop", "EnvironmentIdentifier": "prod",'
            b' "ConfigurationProfileIdentifier": "flags"}'
        )
        start = request(body, Authorization=SIGNED.format("appconfig"))
        start = dataclasses.replace(start, path="/configurationsessions")
        latest = dataclasses.replace(
            request(b"", Authorization=SIGNED.format("appconfig")),
            method="GET",
            path="/configuration?configuration_token=abc",
        )

        assert ("StartConfigurationSession", ("shop/prod/flags",)) == (
            aws_messages.operation(start),
            aws_messages.names(start),
        )
        assert ("GetLatestConfiguration", ()) == (
            aws_messages.operation(latest),
            aws_messages.names(latest),
        )

    def test_unsigned_service_is_read_off_the_target(self):
        """Without a signature the target tells the service."""
        unsigned = request(X_Amz_Target="AWSCognitoIdentityService.GetId")

        assert "AWSCognitoIdentityService" == aws_messages.service(unsigned)

    @pytest.mark.parametrize(
        ("service", "body", "names"),
        [
            ("ssm", b'{"Name": "/p", "Value": "v"}', ("/p",)),
            ("ssm", b'{"Names": ["/p", 3, "/q"]}', ("/p", "/q")),
            ("ssm", b'{"Path": "/"}', ("/",)),
            ("secretsmanager", b'{"SecretId": "a", "SecretString": "v"}', ("a",)),
            ("secretsmanager", b"[]", ()),
            ("secretsmanager", b"no json", ()),
            ("dynamodb", b'{"Name": "x"}', ()),
        ],
    )
    def test_names_are_those_of_secrets_and_parameters(self, service, body, names):
        """Names are taken from members that hold names, of the two services only."""
        asked = request(body, Authorization=SIGNED.format(service))

        assert names == aws_messages.names(asked)

    @pytest.mark.parametrize(
        ("answer", "errors"),
        [
            (Answer.json(200, {"Errors": [{"ErrorCode": "A"}, "?"]}), ("A",)),
            (Answer.json(200, {"Errors": "text"}), ()),
            (Answer.json(200, ["text"]), ()),
            (Answer(200, b"no json"), ()),
            (Answer.json(400, {"__type": "com.amazonaws#NotFound"}), ("NotFound",)),
            (
                Answer(403, b"<xml/>", {"X-Amzn-Errortype": "Denied:http://x"}),
                ("Denied",),
            ),
            (Answer(404, b"{}", {"x-amzn-ErrorType": "NotThere"}), ("NotThere",)),
            (Answer(500, b"<xml/>"), ("Unknown",)),
        ],
    )
    def test_errors_are_codes_of_the_call_or_of_names(self, answer, errors):
        """A failed call has its code, a batch the codes of its names."""
        assert errors == aws_messages.error_codes(answer)
