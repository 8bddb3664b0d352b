"""Whose signature: the environment's keys, or the container's."""

from __future__ import annotations

import email.utils
import os
import threading
import time

import boto3
import pytest
from helpers import interrupted, run_threads
from interruptions import interruptions
from wire import Wire, authority, dripping, failing, instead, refusing, response, silent

from lambda_ext import exceptions
from lambda_ext.aws import container_credentials, credentials, light, transport
from lambda_ext.lifecycle import clock, phases

WALL = 1_700_000_000  # when the clock of these tests begins: 2023-11-14T22:13:20Z
LATER = "2023-11-15T04:13:20Z"  # six hours after
SOON = "2023-11-14T22:15:20Z"  # two minutes after
PAST = "2023-11-14T22:13:19Z"


class Vault:
    """An endpoint for credentials that numbers the keys it hands out."""

    def __init__(self):
        self.expiration = LATER
        self.same = False
        self.count = 0

    def __call__(self, request):
        self.count += 1
        number = 1 if self.same else self.count
        return {
            "AccessKeyId": f"AKID{number}",
            "SecretAccessKey": "hunter2",
            "Token": f"token{number}",
            "Expiration": self.expiration,
        }


@pytest.fixture(name="vault")
def _vault(monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "Bearer abc")
    vault = Vault()
    with Wire(vault) as wire:
        vault.wire = wire
        url = wire.url + "/2021-04-23/credentials?a=b"
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
        yield vault


@pytest.fixture(name="way")
def _way(time, server, vault):
    way = light.Light("secretsmanager")
    yield way
    way.close()


def stamp(moment):
    """Return an instant as the endpoint writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def ask(way):
    """Read a secret, so that a signature is made."""
    return way.call("GetSecretValue", {"SecretId": "db"}, timeout_s=5.0)


def signers(server):
    """Return the access key and the token of each request to the service."""
    return [
        (
            request.headers["authorization"]
            .partition("Credential=")[2]
            .partition("/")[0],
            request.headers["x-amz-security-token"],
        )
        for request in server.requests
    ]


class TestContainer:
    """The container's endpoint, as under SnapStart."""

    def test_keys_are_fetched_once_and_kept(self, way, server, vault):
        """Two calls cost one visit, with the token, path and query as given."""
        ask(way)
        ask(way)

        assert [("AKID1", "token1")] * 2 == signers(server)
        (request,) = vault.wire.requests
        assert "Bearer abc" == request.headers["authorization"]
        assert "/2021-04-23/credentials?a=b" == request.target

    @pytest.mark.parametrize("time_first", [True, False])
    def test_refused_time_and_refused_keys_are_both_mended(
        self, way, server, vault, time_first
    ):
        """A clock that is off and keys that ended cost one more try each."""
        ahead = email.utils.formatdate(WALL + 900, usegmt=True)
        faults = [
            refusing("InvalidSignatureException", Date=ahead),
            refusing("ExpiredTokenException", Date=ahead),
        ]
        server.faults += faults if time_first else faults[::-1]

        assert "value of db" == ask(way)["SecretString"]
        assert "token2" == signers(server)[-1][1]
        assert 3 == len(server.requests)

    def test_token_file_is_read_each_time(
        self, way, server, vault, monkeypatch, tmp_path
    ):
        """A token that rotates in its file comes before the variable."""
        path = tmp_path / "token"
        path.write_text("first\n")
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(path))
        ask(way)
        path.write_text("second")
        way.close()
        ask(way)

        assert ["first", "second"] == [
            request.headers["authorization"] for request in vault.wire.requests
        ]

    def test_no_token_sends_none(self, way, vault, monkeypatch):
        """An endpoint that wants no token gets no header."""
        monkeypatch.delenv("AWS_CONTAINER_AUTHORIZATION_TOKEN")
        ask(way)

        assert "authorization" not in vault.wire.requests[0].headers

    def test_token_file_that_is_missing_is_named(self, way, monkeypatch):
        """The error says which file cannot be read."""
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/nowhere/token")

        with pytest.raises(exceptions.ConfigurationError, match="/nowhere/token"):
            ask(way)

    @pytest.mark.parametrize(
        "token", [b"hunter2\r\nX: y", b"hunter2\xe2\x82\xac", b"hunter2\xff"]
    )
    @pytest.mark.parametrize("in_file", [False, True])
    def test_token_with_a_line_break_is_refused(
        self, way, vault, monkeypatch, tmp_path, token, in_file
    ):
        """A token cannot smuggle a header in, and is not quoted."""
        if in_file:
            path = tmp_path / "token"
            path.write_bytes(token)
            monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(path))
        else:
            text = os.fsdecode(token)
            monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", text)

        with pytest.raises(exceptions.ConfigurationError) as caught:
            ask(way)
        assert "hunter2" not in str(caught.value)
        assert caught.value.__context__ is None
        assert [] == vault.wire.requests

    def test_keys_are_renewed_before_they_expire(self, way, server, vault, time):
        """Five minutes before the end the next call takes new keys."""
        ask(way)
        time.advance(6 * 3600 - container_credentials.EARLY_S - 1)
        ask(way)
        time.advance(2)
        ask(way)

        assert ["token1", "token1", "token2"] == [token for _, token in signers(server)]

    def test_keys_that_expired_in_a_freeze_are_renewed(self, way, server, time):
        """Run time that stood still does not keep keys alive."""
        ask(way)
        time.step(7 * 3600)
        ask(way)

        assert ["token1", "token2"] == [token for _, token in signers(server)]

    def test_old_keys_serve_while_they_hold(self, way, server, vault, time):
        """An endpoint that fails early is no failure of the call."""
        vault.expiration = SOON
        ask(way)
        time.advance(31)
        vault.wire.faults.append(failing(500))
        ask(way)

        assert ["token1", "token1"] == [token for _, token in signers(server)]
        assert 2 == len(vault.wire.requests)

    def test_endpoint_is_not_asked_all_the_time(self, way, vault, time):
        """Keys that are near their end are asked for every half minute at most."""
        vault.expiration = SOON
        for _ in range(20):
            ask(way)
            time.advance(2)

        assert 2 == len(vault.wire.requests)

    def test_keys_that_do_not_expire_are_kept(self, way, vault, time):
        """Without an expiry the endpoint is not asked again."""
        vault.expiration = None
        ask(way)
        time.advance(86400)
        ask(way)

        assert 1 == len(vault.wire.requests)

    def test_refused_keys_are_renewed_at_once(self, way, server):
        """ExpiredToken costs one visit and one more try."""
        server.faults.append(refusing("ExpiredTokenException"))
        ask(way)

        assert ["token1", "token2"] == [token for _, token in signers(server)]

    def test_refused_keys_without_newer_ones_are_final(self, way, server, vault):
        """The endpoint's same keys again are not sent again."""
        vault.same = True
        server.faults.append(refusing("UnrecognizedClientException"))

        with pytest.raises(exceptions.AccessDeniedError):
            ask(way)
        assert 1 == len(server.requests)

    def test_keys_are_renewed_once_in_a_call(self, way, server, vault):
        """An endpoint whose every key is refused does not keep a call going."""
        server.fault = refusing("ExpiredTokenException")

        with pytest.raises(exceptions.AccessDeniedError):
            ask(way)
        assert (2, 2) == (len(server.requests), vault.count)

    def test_restored_snapshot_asks_for_its_own_keys(
        self, time, server, vault, monkeypatch
    ):
        """No key that was there before the snapshot is used after it."""
        monkeypatch.setenv("LAMBDA_EXT_TRANSPORT", "light")
        way = transport.transport("secretsmanager")
        ask(way)
        phases.call(phases.RESTORE)
        ask(way)

        assert ["token1", "token2"] == [token for _, token in signers(server)]

    def test_keys_that_a_snapshot_interrupts_serve_the_call_alone(
        self, time, server, vault, monkeypatch
    ):
        """Those that were asked for before a restore, and come after it, are not kept."""
        monkeypatch.setenv("LAMBDA_EXT_TRANSPORT", "light")
        way = transport.transport("secretsmanager")
        entered, leave = threading.Event(), threading.Event()

        def slow(peer, data):
            answer = data()
            entered.set()
            leave.wait(30)
            peer.send(answer)

        vault.wire.faults.append(slow)
        asking = threading.Thread(target=ask, args=(way,))
        asking.start()
        assert entered.wait(30)
        phases.call(phases.RESTORE)
        leave.set()
        asking.join(30)
        ask(way)
        ask(way)

        assert ["token1", "token2", "token2"] == [token for _, token in signers(server)]

    def test_services_share_the_keys(self, time, server, vault):
        """Secrets and parameters cost one visit together."""
        ask(light.Light("secretsmanager"))
        light.Light("ssm").call("GetParameter", {"Name": "/a"})

        assert 1 == len(vault.wire.requests)

    def test_many_threads_fetch_once(self, way, vault):
        """Sixteen threads without keys wait for the same visit."""
        run_threads(16, lambda index: ask(way))

        assert 1 == len(vault.wire.requests)

    def test_threads_use_old_keys_while_one_fetches(self, way, server, vault, time):
        """A renewal holds up no caller whose keys are still valid."""
        vault.expiration = SOON
        ask(way)
        time.advance(31)
        entered, leave = threading.Event(), threading.Event()

        def slow(peer, data):
            entered.set()
            leave.wait(30)
            peer.send(data())

        vault.wire.faults.append(slow)
        fetching = threading.Thread(target=ask, args=(way,))
        fetching.start()
        assert entered.wait(30)
        ask(way)
        visits = len(vault.wire.requests)
        leave.set()
        fetching.join(30)

        assert 2 == visits  # one that waited would have made its own
        assert ["token1", "token1", "token2"] == [token for _, token in signers(server)]

    def test_keys_that_were_renewed_meanwhile_are_kept(self, vault, time):
        """A second caller that was refused with the old ones has the new at once."""
        url = os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
        provider = container_credentials.container(url)
        ends_at = clock.monotonic() + 5
        refused = provider.keys(ends_at)

        assert [True, True] == [provider.renewed(refused, ends_at) for _ in range(2)]
        assert 2 == vault.count

    def test_forked_child_is_not_blocked(self, way, server, vault):
        """A fetch that was under way at the fork does not hold up the child."""
        entered, leave = threading.Event(), threading.Event()

        def slow(peer, data):
            entered.set()
            leave.wait(30)
            peer.send(data())

        vault.wire.faults.append(slow)
        fetching = threading.Thread(target=ask, args=(way,))
        fetching.start()
        assert entered.wait(30)
        child = os.fork()
        if child == 0:
            try:
                ask(way)
            except BaseException:
                os._exit(1)
            os._exit(0)
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        leave.set()
        fetching.join(30)

        assert 2 == len(vault.wire.requests)

    @pytest.mark.parametrize("code", ["InvalidSignatureException",
                                      "SignatureDoesNotMatch"])  # fmt: skip
    def test_keys_that_sign_wrongly_are_fetched_anew(self, code, way, server, vault):
        """Well-formed keys that AWS does not take spoil no later call."""
        secrets = ["wrong", "right"]
        vault.wire.answer = lambda request: {
            "AccessKeyId": "AKID",
            "SecretAccessKey": secrets.pop(0),
            "Token": "token",
        }
        server.faults.append(refusing(code))

        assert "value of db" == ask(way)["SecretString"]
        assert [] == secrets
        assert 2 == len(server.requests)

    @pytest.mark.parametrize("member", ["AccessKeyId", "SecretAccessKey", "Token"])
    def test_endless_key_is_refused(self, member, way, vault):
        """What no header could carry is no key."""
        answer = {"AccessKeyId": "a", "SecretAccessKey": "b", "Token": "c"}
        blob = response(200, {**answer, member: "x" * 70_000})
        vault.wire.faults += [instead(blob)] * 3

        with pytest.raises(exceptions.SourceError, match="credentials"):
            ask(way)

    def test_scope_survives_new_keys(self, way):
        """Keys rotate, the role stays: so does the scope of what is cached."""
        before = way.scope
        ask(way)

        assert before == way.scope == light.Light("secretsmanager").scope
        assert "hunter2" not in repr(way.scope)

    @pytest.mark.parametrize(
        "blob",
        [b"", b"HTTP/1.1 200 OK\r\n\r\nhunter2", response(200, b'{"hunter2'),
         response(200, b"[]"), response(200, {"AccessKeyId": "a"}),
         response(200, {"AccessKeyId": "a", "SecretAccessKey": "hunter2",
                        "Expiration": "soon"}),
         response(200, {"AccessKeyId": "a\r\nX: y", "SecretAccessKey": "hunter2"}),
         response(200, {"AccessKeyId": 1, "SecretAccessKey": "hunter2"}),
         response(200, b"[" * 100_000), response(404, b"hunter2"), response(500, b""), b"garbage hunter2"],
    )  # fmt: skip
    def test_answer_without_keys_is_told_and_not_quoted(self, way, vault, blob):
        """For every other answer of the endpoint the error is transient and shows no key."""
        vault.wire.faults += [instead(blob)] * 3

        with pytest.raises(exceptions.SourceError, match="credentials") as caught:
            ask(way)
        assert caught.value.transient
        told = caught.value
        while told is not None:
            assert "hunter2" not in repr(told) + str(vars(told))
            told = told.__context__

    def test_silent_endpoint_costs_the_deadline(self, way, vault):
        """An endpoint that never answers does not outlast the caller's time."""
        clock.install(None)
        vault.wire.faults += [silent] * 3

        with pytest.raises(exceptions.SourceError, match="credentials"):
            way.call("GetSecretValue", {"SecretId": "db"}, timeout_s=0.2)

    def test_endpoint_that_drips_costs_the_deadline(self, way, server, vault):
        """A byte now and then does not extend the caller's time."""
        clock.install(None)
        vault.wire.fault = dripping(20, 0.02)

        with pytest.raises(exceptions.SourceError):
            way.call("GetSecretValue", {"SecretId": "db"}, timeout_s=0.3)
        assert [] == server.requests

    def test_silent_endpoint_leaves_time_while_old_keys_hold(self, way, server, vault):
        """A renewal that hangs does not use up the time of the call itself."""
        clock.install(None)
        vault.expiration = stamp(clock.wall() + 3600)
        ask(way)
        way._provider._again_at = 0.0  # it is time to ask for new ones
        vault.wire.faults += [silent, silent]

        way.call("GetSecretValue", {"SecretId": "db"}, timeout_s=2.4)

        assert ["token1", "token1"] == [token for _, token in signers(server)]
        assert 3 == len(vault.wire.requests)  # the kept connection, a new one

    def test_threads_at_a_silent_endpoint_all_come_back(self, way, server, vault):
        """Sixteen threads share the wait, each within its own time."""
        clock.install(None)
        vault.wire.fault = silent

        def body(index):
            return way.call("GetSecretValue", {"SecretId": "db"}, timeout_s=0.4)

        results = run_threads(16, body)

        assert all(isinstance(result, exceptions.SourceError) for result in results)
        assert all(result.transient for result in results)
        assert len(vault.wire.requests) <= 16
        assert [] == server.requests

    def test_keys_show_no_secret(self, way):
        """Keys and providers that are printed tell no secret."""
        keys = way._provider.keys(clock.monotonic() + 5)

        assert "<keys AKID1>" == repr(keys)
        assert "hunter2" not in repr(way._provider)

    @pytest.mark.parametrize(
        "text",
        [LATER, "2023-11-15T04:13:20.123Z", "2023-11-15T04:13:20+00:00",
         "2023-11-15T04:13:20-0000"],
    )  # fmt: skip
    def test_expiry_is_understood_in_all_its_forms(self, text):
        """AWS writes one moment in several ways."""
        assert WALL + 6 * 3600 == container_credentials._expiry(text)


class TestEnvironment:
    """The keys in variables, as on Lambda without SnapStart."""

    def test_keys_are_read_at_each_signing(self, server, monkeypatch):
        """Keys that change in the environment sign the next request."""
        way = light.Light("secretsmanager")
        monkeypatch.setenv("AWS_SESSION_TOKEN", "one")
        ask(way)
        monkeypatch.delenv("AWS_SESSION_TOKEN")
        monkeypatch.setenv("AWS_SECURITY_TOKEN", "two")
        ask(way)

        assert [("testing", "one"), ("testing", "two")] == signers(server)

    def test_older_name_of_the_token_comes_first(self, server, monkeypatch):
        """Of two different tokens the one is taken that boto3 takes."""
        monkeypatch.setenv("AWS_SESSION_TOKEN", "new")
        monkeypatch.setenv("AWS_SECURITY_TOKEN", "old")
        ask(light.Light("secretsmanager"))
        ask(transport.transport("secretsmanager", session=boto3.session.Session()))

        assert ["old", "old"] == [token for _, token in signers(server)]

    def test_key_without_its_secret_says_what_to_set(self, server, monkeypatch):
        """Half of a pair is told as no credentials, on either way."""
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

        with pytest.raises(
            exceptions.ConfigurationError,
            match=r"^secretsmanager: no .* AWS_SECRET_ACCESS_KEY",
        ):
            light.Light("secretsmanager")

    @pytest.mark.parametrize(
        "name",
        ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
         "AWS_SECURITY_TOKEN"],
    )  # fmt: skip
    @pytest.mark.parametrize(
        "value", ["hunter2\r\nX: y", "hunter2\n", "hunter2\u20ac", "hunter2\udcff"]
    )
    def test_variable_cannot_smuggle_a_header_in(
        self, server, monkeypatch, name, value
    ):
        """What would split a header is told by its name, not quoted, and not sent."""
        way = light.Light("secretsmanager")
        monkeypatch.setenv(name, value)

        with pytest.raises(exceptions.ConfigurationError, match=name) as caught:
            ask(way)
        assert "hunter2" not in str(caught.value)
        assert [] == server.requests

    def test_keys_that_are_gone_are_told_with_what_was_asked_for(
        self, server, monkeypatch
    ):
        """Variables that are emptied later are an error that names the secret."""
        way = light.Light("secretsmanager")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

        with pytest.raises(
            exceptions.ConfigurationError,
            match=r"^secret 'db': no .* AWS_SECRET_ACCESS_KEY",
        ):
            ask(way)


@pytest.mark.parametrize(
    ("url", "documented"),
    [
        ("http://127.0.0.1:9001/2021-04-23/credentials", True),
        ("http://localhost/x", True),
        ("http://[::1]:80/x?a=b", True),
        ("http://169.254.170.2/v2", True),
        ("http://169.254.170.23/v1/credentials", True),
        ("http://[fd00:ec2::23]/v1/credentials", True),
        ("http://169.254.169.254/latest", False),
        ("http://10.0.0.1/x", False),
        ("http://evil.example/x", False),
        ("http://127.0.0.1.evil.example/x", False),
        ("http://127.0.0.1@evil.example/x", False),
        ("https://127.0.0.1/x", False),
        ("http://127.0.0.1/x?a\r\nX: y", False),
        ("http://127.0.0.1/x?a b", False),
        ("http://0.0.0.0/x", False),
        ("nonsense", False),
        ("", False),
    ],
)
def test_token_goes_only_where_aws_documents(url, documented):
    """Loopback and the link-local addresses of ECS and EKS, nothing else."""
    assert documented is container_credentials.is_documented(url)


def test_authority_of_tests_is_not_the_machines():
    """The certificates of these tests are not trusted by default."""
    assert b"BEGIN CERTIFICATE" in authority().pem


def test_interrupted_fetch_leaves_the_lock_to_others(monkeypatch):
    """A signal handler that raises at any place does not make others wait for ever."""
    provider = container_credentials.Container("http://169.254.170.23/v1/credentials")
    keys = credentials.Keys("AKID", "hunter2", "token")
    monkeypatch.setattr(container_credentials.Container, "_fetched", lambda *_: keys)
    count = 0
    for run in interruptions((container_credentials, credentials)):
        interrupted(run, lambda: provider.keys(clock.monotonic() + 60))
        assert not provider._lock._is_owned()
        provider._keys = None
        count += 1

    assert count > 3
