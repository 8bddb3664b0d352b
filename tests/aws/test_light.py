"""The light way to AWS, alone and next to boto3."""

from __future__ import annotations

import email.utils
import errno
import os
import random
import socket
import threading
import time
import types

import boto3
import pytest
from helpers import eventually, run_threads
from reference import COMMON, EXPECTED, botocore_signature
from wire import (
    Wire,
    cut,
    doubled,
    error,
    failing,
    instead,
    mute,
    redirecting,
    refusing,
    reset,
    response,
    stale,
    vanish,
    whole,
)

from lambda_ext import exceptions
from lambda_ext.aws import connections, light, native, regions, retries, transport
from lambda_ext.aws.signing import Keys
from lambda_ext.lifecycle import clock, phases
from lambda_ext.testing import FakeClock

REQUESTS = {
    "GetSecretValue": ("secretsmanager", {"SecretId": "db", "VersionStage": "A"}),
    "BatchGetSecretValue": ("secretsmanager", {"SecretIdList": ["a", "\u00e9"]}),
    "GetParameter": ("ssm", {"Name": "/a", "WithDecryption": True}),
    "GetParameters": ("ssm", {"Names": ["/a", "/b"], "WithDecryption": False}),
    "GetParametersByPath": ("ssm", {"Path": "/", "Recursive": True, "MaxResults": 10}),
    "StartConfigurationSession": (
        "appconfigdata",
        {"ApplicationIdentifier": "shop \u00e9", "EnvironmentIdentifier": "prod",
         "ConfigurationProfileIdentifier": "flags"},
    ),
    "GetLatestConfiguration": (
        "appconfigdata",
        {"ConfigurationToken": "AB/+= \u00e9~-._%"},
    ),
}  # fmt: skip
ANSWERS = {
    "GetSecretValue": {
        "ARN": "arn", "Name": "db", "VersionId": "v", "SecretBinary": "AAH/",
        "VersionStages": ["AWSCURRENT"], "SecretString": None,
    },
    "BatchGetSecretValue": {
        "SecretValues": [
            {"ARN": "a", "Name": "a", "SecretString": "\u00e9\u0000\ud83d\ude00"},
            {"ARN": "b", "Name": "b", "SecretBinary": ""},
        ],
        "Errors": [{"SecretId": "c", "ErrorCode": "X", "Message": "m"}],
    },
    "GetParameter": {"Parameter": {"Name": "/a", "Value": "1", "Version": 7}},
    "GetParameters": {
        "Parameters": [{"Name": "/a", "Value": "", "Selector": ":2"}],
        "InvalidParameters": ["/b"],
    },
    "GetParametersByPath": {"Parameters": [], "NextToken": "n"},
    "StartConfigurationSession": {"InitialConfigurationToken": "t"},
    "GetLatestConfiguration": response(
        200, b'{"a": 1}\xff', Next_Poll_Configuration_Token="n",
        Next_Poll_Interval_In_Seconds="60", Content_Type="application/json",
        Version_Label="7",
    ),
}  # fmt: skip


def both(service):
    """Return the two ways to *service*: the same environment, the same server."""
    return (
        light.Light(service),
        transport.transport(service, session=boto3.session.Session()),
    )


@pytest.fixture(name="secrets")
def _secrets(server):
    way = light.Light("secretsmanager")
    yield way
    way.close()


def chained(error):
    """Return all that an error tells, or holds, with all that it came from."""
    told, left, seen = [], [error], []
    while left:
        error = left.pop()
        if error is None or any(error is other for other in seen):
            continue
        seen.append(error)
        told += [repr(error), str(error), repr(vars(error))]
        told += [repr(getattr(error, name, "")) for name in ("doc", "object")]
        left += [error.__cause__, error.__context__]
    return "\n".join(told)


def get(way, name="db", **options):
    """Return the text of a secret."""
    return way.call("GetSecretValue", {"SecretId": name}, **options)["SecretString"]


class TestNextToBoto3:
    """What a caller gets does not tell which way it came."""

    @pytest.mark.parametrize("operation", sorted(REQUESTS))
    def test_answers_are_the_same(self, operation, server):
        """Each operation's answer has the same fields and types on both ways."""
        service, parameters = REQUESTS[operation]
        server.answer = lambda request: ANSWERS[operation]

        ours, boto = (way.call(operation, parameters) for way in both(service))

        metadata = [answer.pop("ResponseMetadata") for answer in (ours, boto)]
        metadata[1].pop("MaxAttemptsReached", None)  # one is made at a time
        for each in metadata:
            each["HTTPHeaders"].pop("date")
        assert boto == ours
        assert metadata[0] == metadata[1]

    @pytest.mark.parametrize("operation", sorted(REQUESTS))
    def test_requests_say_the_same(self, operation, server):
        """Each operation's request has the same method, target and parameters."""
        service, parameters = REQUESTS[operation]
        server.answer = lambda request: ANSWERS[operation]

        for way in both(service):
            way.call(operation, parameters)

        ours, boto = server.requests
        assert (boto.method, boto.target) == (ours.method, ours.target)
        for name in ("content-type", "x-amz-target", "host"):
            if name != "content-type" or service != "appconfigdata":
                assert boto.headers.get(name) == ours.headers.get(name)
        if boto.body:
            assert boto.parameters == ours.parameters

    def test_errors_are_the_same(self, server):
        """Every code of every model gives the same class, facts and message."""
        ways = both("secretsmanager")
        for way in ways:
            way.attempts = 1
        for code in sorted(EXPECTED | COMMON):
            seen = []
            for way in ways:
                server.faults.append(refusing(code, "Why."))
                with pytest.raises(exceptions.SourceError) as caught:
                    get(way)
                error = caught.value
                seen.append((type(error), str(error), error.code, error.key,
                             error.source, error.transient))  # fmt: skip
            assert seen[0] == seen[1]
            assert (EXPECTED | COMMON)[code] == (seen[0][0], seen[0][5])

    @pytest.mark.parametrize("status", [400, 403, 404, 429, 500, 502, 503, 504])
    @pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"message": "m"}'])
    def test_statuses_without_a_code_are_the_same(self, server, status, body):
        """An answer of a balancer's, say, is judged the same on both ways."""
        seen = []
        for way in both("ssm"):
            way.attempts = 1
            server.faults.append(failing(status, body))
            with pytest.raises(exceptions.SourceError) as caught:
                way.call("GetParameter", {"Name": "/a"})
            seen.append((str(caught.value), type(caught.value), caught.value.transient))

        assert seen[0] == seen[1]

    @pytest.mark.parametrize("operation", sorted(REQUESTS))
    def test_error_that_is_no_json_is_never_quoted(self, operation, server):
        """Neither the error nor anything in its chain holds what came instead."""
        service, parameters = REQUESTS[operation]
        bodies = (b"s3cr3t", b'{"SecretString": "s3cr3t', b"\xffs3cr3t", b'"s3cr3t"')
        coded = {"x_amzn_ErrorType": "AccessDeniedException"}

        for way in both(service):
            way.attempts = 1
            for status in (301, 400, 403, 500):
                for body in bodies:
                    for headers in ({}, coded):
                        server.fault = failing(status, body, **headers)
                        with pytest.raises(exceptions.SourceError) as caught:
                            way.call(operation, parameters)
                        assert "s3cr3t" not in chained(caught.value)

    @pytest.mark.parametrize(
        "blob",
        [
            b"s3cr3t\r\n\r\n",
            b"HTTP/1.1 s3cr3t\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\ns3cr3t\r\n",
            response(200, b'"s3cr3t"'),
            response(200, b"s3cr3t"),
            response(200, b"\xffs3cr3t"),
            response(200, {"SecretBinary": "s3cr3t\u00e9"}),
        ],
    )
    def test_answer_that_is_none_is_never_quoted(self, server, blob):
        """What cannot be read as an answer is in no message and in no chain."""
        server.fault = instead(blob)

        for way in both("secretsmanager"):
            way.attempts = 1
            with pytest.raises(exceptions.SourceError) as caught:
                get(way)
            assert "s3cr3t" not in chained(caught.value)

    def test_details_of_appconfig_are_the_same(self, server):
        """A token that expired is told as that on both ways."""
        body = {
            "Message": "No.",
            "Reason": "InvalidParameters",
            "Details": {
                "InvalidParameters": {"ConfigurationToken": {"Problem": "Expired"}}
            },
        }
        server.answer = lambda request: response(
            400,
            body,
            x_amzn_ErrorType="BadRequestException:http://x/",
            Content_Type="application/json",
        )
        seen = set()
        for way in both("appconfigdata"):
            with pytest.raises(exceptions.SourceError) as caught:
                way.call("GetLatestConfiguration", {"ConfigurationToken": "t"})
            seen.add((str(caught.value), caught.value.code))

        assert {
            ("appconfigdata: BadRequestException: No. (ConfigurationToken: Expired)",
             "BadRequestException")
        } == seen  # fmt: skip

    def test_scopes_are_the_same(self):
        """Values that came one way are found by the other."""
        ours, boto = both("secretsmanager")

        assert boto.scope == ours.scope


class TestSignature:
    """What is sent is signed, and as botocore would sign it."""

    @pytest.mark.parametrize("token", ["", "session/token+="])
    @pytest.mark.parametrize("operation", sorted(REQUESTS))
    def test_request_carries_botocores_signature(
        self, operation, token, server, monkeypatch
    ):
        """The header of each operation equals what botocore computes for it."""
        monkeypatch.setenv("AWS_SESSION_TOKEN", token)
        service, parameters = REQUESTS[operation]
        server.answer = lambda request: ANSWERS[operation]

        light.Light(service).call(operation, parameters)

        (request,) = server.requests
        authorization = request.headers["authorization"]
        names = authorization.partition("SignedHeaders=")[2].partition(",")[0]
        headers = {name: request.headers[name] for name in names.split(";")}
        assert authorization == botocore_signature(
            request.method,
            server.url + request.target,
            headers,
            request.body,
            Keys("testing", "testing", token),
            "eu-central-1",
            "appconfig" if service == "appconfigdata" else service,
        )
        assert token == request.headers.get("x-amz-security-token", "")
        assert {"host", "x-amz-date"} <= set(headers)

    def test_trace_of_lambda_is_sent_along(self, secrets, server, monkeypatch):
        """As boto3 does, inside Lambda only; and nothing splits a header."""
        client = boto3.session.Session().client("secretsmanager")
        for inside in (False, True):
            if inside:
                monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "f")
            for trace in (
                "Root=1-5e1b4151;Parent=53995c3f42cd8ad8;Sampled=1",
                "Root=1\r\nX: y",
                "Sampled=0 \u2013 ~_'\"<%",
            ):
                monkeypatch.setenv("_X_AMZN_TRACE_ID", trace)
                server.requests.clear()
                get(secrets)
                client.get_secret_value(SecretId="db")

                ours, theirs = (
                    request.headers.get("x-amzn-trace-id")
                    for request in server.requests
                )
                assert theirs == ours
                assert inside is (ours is not None)

    def test_clock_skew_is_corrected_once(self, secrets, server, pauses):
        """Fifteen minutes off cost one request more, and only the first time."""
        ahead = email.utils.formatdate(time.time() + 900, usegmt=True)
        server.faults.append(refusing("InvalidSignatureException", Date=ahead))

        assert "value of db" == get(secrets)
        assert "value of db" == get(secrets)

        refused, corrected, later = (r.headers["x-amz-date"] for r in server.requests)
        assert refused[:11] <= corrected[:11] <= later[:11]
        assert seconds(corrected) - seconds(refused) >= 890
        assert seconds(later) - seconds(corrected) < 300
        assert [] == pauses

    def test_refused_time_is_not_tried_a_third_time(self, secrets, server):
        """When AWS's own time does not help either, the refusal is raised."""
        ahead = email.utils.formatdate(time.time() + 900, usegmt=True)
        refusal = refusing("InvalidSignatureException", Date=ahead)
        server.faults += [refusal, refusal]

        with pytest.raises(exceptions.AccessDeniedError):
            get(secrets)
        assert 2 == len(server.requests)

    def test_refusal_at_the_right_time_is_final(self, secrets, server):
        """A wrong secret key is not taken for a wrong clock."""
        server.faults.append(refusing("InvalidSignatureException"))

        with pytest.raises(exceptions.AccessDeniedError):
            get(secrets)
        assert 1 == len(server.requests)

    def test_keys_renewed_in_the_environment_are_taken(
        self, secrets, server, monkeypatch
    ):
        """Expired keys are read again, and one more try is made with new ones."""

        def renew(peer, data):
            monkeypatch.setenv("AWS_SESSION_TOKEN", "new")
            refusing("ExpiredTokenException")(peer, data)

        server.faults.append(renew)

        assert "value of db" == get(secrets)
        assert "new" == server.requests[1].headers["x-amz-security-token"]

    def test_expired_keys_without_new_ones_are_final(self, secrets, server):
        """The same keys are not sent twice."""
        server.faults.append(refusing("ExpiredTokenException"))

        with pytest.raises(exceptions.AccessDeniedError) as caught:
            get(secrets)
        assert 1 == len(server.requests)
        assert "ExpiredTokenException" == caught.value.code


def seconds(stamp):
    """Return the epoch seconds of a time in AWS's form."""
    return time.mktime(time.strptime(stamp, "%Y%m%dT%H%M%SZ"))


class TestConnections:
    """Connections are kept, and replaced when they are dead."""

    def test_connection_is_kept(self, secrets, server):
        """Five calls in a row use one connection."""
        for _ in range(5):
            get(secrets)

        assert 1 == server.connections

    @pytest.mark.parametrize("death", [vanish, reset])
    def test_dead_connection_is_replaced_silently(self, secrets, server, pauses, death):
        """A kept connection that turns out dead costs no attempt and no pause."""
        get(secrets)
        secrets.attempts = 1
        server.faults.append(death)

        assert "value of db" == get(secrets)
        assert 2 == server.connections
        assert [] == pauses

    def test_kept_connection_that_breaks_in_the_answer_is_an_attempt(
        self, secrets, server
    ):
        """Excused is only a death before the first byte of the answer."""
        get(secrets)
        secrets.attempts = 1
        server.faults.append(cut(180, reset))

        with pytest.raises(exceptions.SourceError) as caught:
            get(secrets)
        assert caught.value.transient
        assert 2 == len(server.requests)

    def test_death_of_one_connection_ends_its_neighbours(self, secrets, server):
        """Connections die together: the others are not tried one by one."""
        barrier = threading.Barrier(3)

        def together(peer, data):
            barrier.wait(30)
            peer.send(data())

        server.faults += [together] * 3
        run_threads(3, lambda index: get(secrets))
        assert 3 == len(secrets._connections._idle)
        server.faults.append(vanish)

        get(secrets)

        assert 1 == len(secrets._connections._idle)
        assert 4 == server.connections

    def test_connection_closed_while_idle_is_replaced_silently(
        self, secrets, server, pauses
    ):
        """A server that hangs up between two calls, as in a freeze, is no error."""
        server.faults.append(stale)
        secrets.attempts = 1
        get(secrets)

        assert "value of db" == get(secrets)
        assert 2 == server.connections
        assert [] == pauses

    def test_new_connection_that_dies_is_an_attempt(self, secrets, server, pauses):
        """Only a kept connection is excused; a new one is tried again as usual."""
        server.faults += [vanish, reset, whole]

        assert "value of db" == get(secrets)
        assert 2 == len(pauses)

    def test_old_connection_is_not_used(self, secrets, server):
        """After a freeze no caller waits to find out that a connection is dead."""
        fake = FakeClock()
        clock.install(fake)
        get(secrets)
        fake.step(connections.IDLE_S + 1)

        get(secrets)

        assert 2 == server.connections
        clock.install(None)

    def test_answer_with_more_behind_it_ends_the_connection(self, secrets, server):
        """Bytes that were not asked for never become the next call's answer."""
        blob = response(200, {"ARN": "a", "SecretString": "mine"})
        server.faults.append(instead(blob + blob, mute))

        assert "mine" == get(secrets)
        assert "value of other" == get(secrets, "other")
        assert 2 == server.connections

    def test_threads_do_not_mix_answers(self, secrets, server):
        """Eight threads at once each get what they asked for."""

        def body(index):
            return [get(secrets, f"{index}-{number}") for number in range(10)]

        results = run_threads(8, body)

        for index, values in enumerate(results):
            assert [f"value of {index}-{number}" for number in range(10)] == values
        assert server.connections <= 8
        assert len(secrets._connections._idle) <= connections.KEPT

    def test_snapshot_closes_connections(self, server, monkeypatch):
        """Nothing is connected when the snapshot is taken."""
        monkeypatch.setenv("LAMBDA_EXT_TRANSPORT", "light")
        way = transport.transport("secretsmanager")
        get(way)
        phases.call(phases.SNAPSHOT)
        assert [] == way._connections._idle

        get(way)

        assert 2 == server.connections

    @pytest.mark.process
    def test_forked_child_connects_by_itself(self, server, monkeypatch):
        """Parent and child never read from the same connection."""
        monkeypatch.setenv("LAMBDA_EXT_TRANSPORT", "light")
        way = transport.transport("secretsmanager")
        get(way)
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(write_end, get(way, "child").encode())
            finally:
                os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end) as said:
            assert "value of child" == said.read()
        os.waitpid(child, 0)

        assert "value of db" == get(way)
        assert [1, 2, 1] == [request.connection for request in server.requests]

    @pytest.mark.process
    def test_fork_in_the_middle_of_a_call_disturbs_neither(self, server, monkeypatch):
        """The parent's call ends as if nothing were, the child makes its own."""
        monkeypatch.setenv("LAMBDA_EXT_TRANSPORT", "light")
        way = transport.transport("secretsmanager")
        get(way)
        asked, forked = threading.Event(), threading.Event()

        def between(peer, data):
            asked.set()
            forked.wait(30)
            peer.send(data())

        server.faults.append(between)
        told = []
        calling = threading.Thread(target=lambda: told.append(get(way, "parent")))
        calling.start()
        assert asked.wait(30)
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(write_end, get(way, "child").encode())
            finally:
                os._exit(0)
        os.close(write_end)
        with os.fdopen(read_end) as said:
            assert "value of child" == said.read()
        os.waitpid(child, 0)
        forked.set()
        calling.join(30)

        assert ["value of parent"] == told
        assert "value of db" == get(way)
        assert [1, 1, 2, 1] == [request.connection for request in server.requests]

    def test_bytes_that_come_while_idle_end_the_connection(self, secrets, server):
        """What a server says unasked is never the next call's answer."""
        peers = []

        def remember(peer, data):
            peers.append(peer)
            peer.send(data())

        server.faults.append(remember)
        get(secrets)
        (connection,) = secrets._connections._idle
        assert connection.is_quiet()
        peers[0].send(response(200, {"SecretString": "not yours"}))
        eventually(lambda: not connection.is_quiet())

        assert "value of other" == get(secrets, "other")
        assert 2 == server.connections

    def test_kept_connections_are_bounded(self):
        """However many threads ask at once, ten stay open."""
        pool = connections.Connections(regions.parse("http://127.0.0.1:9"))
        closed = []

        class Answered:
            def exchange(self, request, ends_at):
                return types.SimpleNamespace(reusable=True)

            def close(self):
                closed.append(self)

        for _ in range(connections.KEPT + 5):
            pool._exchange(Answered(), lambda: b"", 0.0)

        assert (connections.KEPT, 5) == (len(pool._idle), len(closed))

    def test_addresses_of_a_name_are_bounded(self, monkeypatch):
        """A name with a hundred addresses does not cost a hundred time-outs."""
        tried = []

        class Refused:
            def __init__(self, *args):
                tried.append(self)

            def settimeout(self, seconds):
                pass

            def connect(self, address):
                raise ConnectionRefusedError

            def close(self):
                pass

        monkeypatch.setattr(native.modules(), "Socket", Refused)
        addresses = [(2, ("127.0.0.1", port)) for port in range(1, 101)]

        with pytest.raises(ConnectionRefusedError):
            connections._connected(addresses, clock.monotonic() + 60)
        assert connections.ADDRESSES == len(tried)

    @pytest.mark.parametrize(
        ("families", "tried"),
        [
            ("6", "6"), ("6666", "666"), ("4444", "444"), ("64", "64"),
            ("666444", "646"), ("444666", "464"), ("46", "46"), ("4666", "466"),
            ("66664", "646"), ("", ""),
        ],
    )  # fmt: skip
    def test_families_take_turns(self, monkeypatch, families, tried):
        """The resolver's first goes first; no family takes all tries. Each is tried once."""
        seen = []

        class Refused:
            def __init__(self, family, kind):
                self.family = family

            def settimeout(self, seconds):
                seen.append((self.family, seconds))

            def connect(self, address):
                raise ConnectionRefusedError

            def close(self):
                pass

        monkeypatch.setattr(native.modules(), "Socket", Refused)
        monkeypatch.setattr(clock, "monotonic", lambda: 100.0)
        addresses = [(family, ("", at)) for at, family in enumerate(families)]

        with pytest.raises((ConnectionRefusedError, TimeoutError)):
            connections._connected(addresses, 101.2)
        shares = [min(1.2 / (len(tried) - at), 1.0) for at in range(len(tried))]
        assert [*zip(tried, map(pytest.approx, shares), strict=True)] == seen

    def test_family_without_sockets_is_skipped(self, monkeypatch):
        """Where the kernel knows no IPv6, the next address is tried."""
        modules = native.modules()
        there = modules.Socket

        def made(family, kind):
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "not supported")
            return there(family, kind)

        monkeypatch.setattr(modules, "Socket", made)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            addresses = [
                (socket.AF_INET6, ("::1", port, 0, 0)),
                (socket.AF_INET, ("127.0.0.1", port)),
            ]
            sock = connections._connected(addresses, clock.monotonic() + 60)
            assert ("127.0.0.1", port) == sock.getpeername()
            sock.close()

    def test_connection_kept_during_a_close_is_closed(self, monkeypatch):
        """One that comes back just when all are closed is not forgotten open."""
        held = connections.Connections(regions.parse("http://127.0.0.1:9"))

        class Answered:
            closed = False

            def exchange(self, request, ends_at):
                return types.SimpleNamespace(reusable=True)

            def close(self):
                self.closed = True

        def now():
            held.close()  # what another thread does between check and append
            return 0.0

        connection = Answered()
        monkeypatch.setattr(connections.clock, "now", now)

        held._exchange(connection, lambda: b"", 0.0)

        assert connection.closed
        assert [] == held._idle

    def test_threads_under_fire_get_their_own_answers(self, secrets, server):
        """For every failure, no caller gets what another asked for."""
        random_ = random.Random(4)
        kinds = (whole, whole, stale, vanish, reset, doubled, cut(90), failing(500))
        server.faults += random_.choices(kinds, k=1000)

        def body(index):
            wrong = []
            for number in range(40):
                name = f"{index}-{number}"
                try:
                    text = get(secrets, name, timeout_s=30.0)
                except exceptions.SourceError:
                    continue
                if text != f"value of {name}":
                    wrong.append(text)
            return wrong

        assert [[]] * 16 == run_threads(16, body)


class TestRefusals:
    """What is never done, and what an error says."""

    def test_redirect_is_not_followed(self, secrets, server):
        """Another server, named by a redirect, hears nothing."""
        with Wire(lambda request: b"") as other:
            for status in (301, 302, 307, 308):
                server.faults.append(redirecting(other.url + "/", status))
                with pytest.raises(exceptions.SourceError, match="redirect") as caught:
                    get(secrets)
                assert not caught.value.transient
            assert 0 == other.connections

    @pytest.mark.parametrize(
        "body",
        [b"<html>hunter2", b'["hunter2"]', b'"hunter2"', b'{"hunter2', b"\xffhunter2",
         b"hunter2" + b"[" * 100_000, b"null", b"", b'{"SecretBinary": "hunter2"}',
         b'{"SecretBinary": 2}', b'{"SecretBinary": "hunt\xc3\xa9r2"}',
         b'{"Name": "a"', b"{}"],
    )  # fmt: skip
    def test_garbage_is_refused_and_never_quoted(self, secrets, server, body):
        """A body that is no answer is an error that passes and tells nothing."""
        server.faults += [instead(response(200, body))] * 3

        with pytest.raises(exceptions.SourceError) as caught:
            get(secrets)
        assert caught.value.transient
        told = caught.value
        while told is not None:
            assert "hunter2" not in repr(told) + str(vars(told))
            assert not hasattr(told, "doc")
            told = told.__context__

    @pytest.mark.parametrize(
        "name", ["a\r\nX: y", "a\u20ac", "a\ud800", "a\0b", "\u212a"]
    )
    def test_name_cannot_smuggle_a_header_in(self, secrets, server, name):
        """Every name of a secret stays in the body, as it is."""
        get(secrets, name)

        (request,) = server.requests
        assert {"SecretId": name} == request.parameters
        assert "x" not in request.headers

    def test_token_cannot_smuggle_a_header_in(self, server):
        """A token of AppConfig's stays in the query, quoted."""
        server.answer = lambda request: ANSWERS["GetLatestConfiguration"]
        way = light.Light("appconfigdata")

        way.call("GetLatestConfiguration", {"ConfigurationToken": "t\r\nX: y&a=b"})

        (request,) = server.requests
        assert "/configuration?configuration_token=t%0D%0AX%3A%20y%26a%3Db" == (
            request.target
        )
        assert "x" not in request.headers

    def test_poll_interval_that_is_no_number_is_refused(self, server):
        """A header that cannot be read is an answer that cannot be."""
        way = light.Light("appconfigdata")
        server.answer = lambda request: response(
            200,
            b"",
            Next_Poll_Configuration_Token="n",
            Next_Poll_Interval_In_Seconds="x",
        )

        with pytest.raises(exceptions.SourceError, match="poll interval"):
            way.call("GetLatestConfiguration", {"ConfigurationToken": "t"})

    def test_secret_that_is_no_object_is_refused(self, server):
        """An entry of a batch that is not an object is an error."""
        way = light.Light("secretsmanager")
        for garbage in (["hunter2"], "hunter2", 2, {"hunter2": 1}, [None]):
            server.answer = lambda request, entries=garbage: {"SecretValues": entries}
            with pytest.raises(exceptions.SourceError, match="JSON") as caught:
                way.call("BatchGetSecretValue", {"SecretIdList": ["a"]})
            assert "hunter2" not in str(caught.value)

    def test_error_without_a_body_names_its_status(self, secrets, server):
        """What a balancer says is told by its status."""
        server.faults += [failing(502, b"hunter2")] * 3

        with pytest.raises(exceptions.SourceError, match="502") as caught:
            get(secrets)
        assert "hunter2" not in str(caught.value)
        assert 3 == len(server.requests)

    def test_retry_after_is_heard(self, secrets, server, pauses):
        """The pause that AWS asks for is the pause that is made."""
        server.faults.append(refusing("ThrottlingException", "", Retry_After="1"))

        get(secrets)

        assert [1.0] == pauses

    def test_closed_port_is_an_error_that_passes(self, monkeypatch, pauses):
        """A refused connection is reported with the host, and tried again."""
        with Wire(lambda request: b"") as gone:
            pass
        monkeypatch.setenv("AWS_ENDPOINT_URL", gone.url)

        with pytest.raises(exceptions.SourceError, match=r"127\.0\.0\.1") as caught:
            get(light.Light("secretsmanager"))
        assert caught.value.transient
        assert isinstance(caught.value.__cause__, OSError)
        assert retries.ATTEMPTS - 1 == len(pauses)

    def test_another_machine_without_tls_gets_no_signature(self, monkeypatch):
        """In the clear requests go to this machine only."""
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://stack:4566")

        with pytest.raises(exceptions.ConfigurationError, match="without TLS"):
            light.Light("secretsmanager")

    def test_localhost_of_another_machine_gets_no_signature(
        self, server, monkeypatch, pauses
    ):
        """A name server that sends "localhost" elsewhere is not believed."""
        modules = native.private()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://localhost:{server.port}")
        way = light.Light("secretsmanager")

        def answered(*addresses):
            modules.getaddrinfo = lambda name, port, *args: [
                (2, 1, 6, "", (address, port)) for address in addresses
            ]
            native.use(modules)

        connected = []
        real = connections._connected

        def noted(addresses, ends_at):
            connected.extend(address for _, (address, _) in addresses)
            return real(addresses, ends_at)

        monkeypatch.setattr(connections, "_connected", noted)
        answered("192.0.2.1")
        with pytest.raises(exceptions.SourceError, match="not this machine") as caught:
            get(way)
        assert caught.value.transient
        assert [] == connected
        answered("192.0.2.1", "127.0.0.1")
        assert "value of db" == get(way)
        assert ["127.0.0.1"] == connected
        way.close()

    def test_repr_tells_the_endpoint_alone(self, secrets, server):
        """A way that is printed shows where it leads."""
        assert f"<transport to {server.url}>" == repr(secrets)
        assert f"<endpoint {server.url}>" == repr(regions.parse(server.url))


def test_wire_error_has_the_form_of_aws():
    """The server of these tests writes errors as the services do."""
    assert b'{"__type": "X", "message": "m"}' in error("X", "m")
