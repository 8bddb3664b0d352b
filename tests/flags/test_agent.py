"""AppConfig's own agent on localhost, asked for what depends on the context."""

from __future__ import annotations

import json
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lambda_ext
from lambda_ext import Configuration, Flags
from lambda_ext.exceptions import (
    FlagError,
    NotFoundError,
    SourceError,
    SourceTimeoutError,
)
from lambda_ext.flags import agent
from lambda_ext.flags.agent import Agent
from lambda_ext.local.server import Answer, Server
from lambda_ext.values import keys

DEFAULTS = {
    "on": {"enabled": True},
    "checkout": {"_variant": "rest", "enabled": False},
}


class FakeAgent:
    """An agent that gives "staff" to those whose tier is gold."""

    def __init__(self):
        self.requests = []
        self.reply = None

    def answer(self, request):
        """Answer as the agent does, and note path and headers."""
        path, _, query = request.path.partition("?")
        context = [
            value
            for name, value in request.headers.items()
            if name.lower() == "context"
        ]
        entity = request.headers.get("Entity-Id")
        self.requests.append((path, query, context, entity))
        if self.reply is not None:
            return self.reply
        headers = {"ConfigurationVersion": "7"}
        if not path.endswith("/applications/a/environments/b/configurations/c"):
            return Answer(404, b"not found")
        if not query:
            return Answer(200, json.dumps(DEFAULTS).encode(), headers)
        flag = {"_variant": "rest", "enabled": False}
        if "tier=gold" in context:
            flag = {"_variant": "staff", "enabled": True, "color": "blue"}
        return Answer(200, json.dumps(flag).encode(), headers)


@pytest.fixture(name="fake")
def _fake():
    """The agent on a port of its own, chosen by the options."""
    fake = FakeAgent()
    server = Server(fake.answer)
    lambda_ext.configure(
        flags_source="agent", agent_port=int(server.address.rpartition(":")[2])
    )
    fake.server = server
    yield fake
    server.close()


class TestFlags:
    """`Flags` over the agent."""

    def test_plain_flag_costs_one_request_in_all(self, fake):
        """A flag without variants comes with the document, and is kept."""
        flags = Flags("a", "b", "c")

        assert [True] * 10 == [flags.enabled("on", {"n": n}) for n in range(10)]
        assert [("/applications/a/environments/b/configurations/c", "", [], None)] == (
            fake.requests
        )

    def test_flag_with_variants_is_asked_for_with_its_context(self, fake):
        """Each evaluation with a context is one request; the variant is the agent's."""
        flags = Flags("a", "b", "c")
        found = flags.evaluate("checkout", {"tier": "gold", "age": 7, "beta": True})

        assert (True, "staff", "UNKNOWN", "7", {"color": "blue"}) == (
            found.enabled,
            found.variant,
            found.reason,
            found.version,
            found.attributes,
        )
        assert (
            "/applications/a/environments/b/configurations/c",
            "flag=checkout",
            ["tier=gold", "age=7", "beta=true"],
            None,
        ) == fake.requests[-1]
        assert not flags.enabled("checkout", {"tier": "tin"})
        assert flags.enabled("checkout", {"tier": "gold"})
        assert 4 == len(fake.requests)

    def test_without_a_context_the_document_says_it(self, fake):
        """The default variant needs no request of its own."""
        flags = Flags("a", "b", "c")
        found = [flags.evaluate("checkout") for _ in range(3)]

        assert {("rest", "DEFAULT")} == {(each.variant, each.reason) for each in found}
        assert 1 == len(fake.requests)

    def test_entity_id_is_a_header_of_its_own(self, fake):
        """The key "entityId" names the entity for gradual deployments, too."""
        Flags("a", "b", "c").enabled("checkout", {"entityId": "user-7"})

        assert (["entityId=user-7"], "user-7") == fake.requests[-1][2:]

    def test_missing_values_are_left_out(self, fake):
        """None and what is no scalar count as missing, as for rules."""
        Flags("a", "b", "c").enabled("checkout", {"x": None, "y": [1], "z": 1})

        assert ["z=1"] == fake.requests[-1][2]

    @pytest.mark.parametrize(
        "context",
        [
            {"k": "a,b"}, {"k": "a\nb"}, {"k": "a\r\nEntity-Id: x"}, {"k": "łódź"},
            {"k": " x"}, {"k": "x "}, {"k": "a\0b"}, {"k": "a\x7fb"}, {"k": "a\tb"},
            {"k": "\x85"}, {"a b": "x"}, {"a:b": "x"}, {"": "x"}, {"ä": "x"},
            {"a\r\nx": "y"}, {5.5: "x"}, {"entityId": "x" * 2049},
        ],
    )  # fmt: skip
    def test_what_cannot_be_sent_is_not(self, fake, context):
        """A context that the agent would take for another is the reason ERROR."""
        flags = Flags("a", "b", "c")
        found = flags.evaluate("checkout", context)

        assert (False, "ERROR") == (found.enabled, found.reason)
        assert 1 == len(fake.requests)  # the document
        with pytest.raises(FlagError, match="'checkout'"):
            flags.enabled("checkout", context)

    @pytest.mark.logs
    def test_default_where_nothing_can_be_sent(self, fake):
        """With a default given it is the default."""
        assert Flags("a", "b", "c").enabled("checkout", {"k": "a,b"}, default=True)

    @pytest.mark.parametrize(
        ("reply", "kind"),
        [
            (Answer(404, b"secret"), NotFoundError),
            (Answer(500, b"secret"), SourceError),
            (Answer(400, b"secret"), SourceError),
            (Answer(200, b"secret"), FlagError),
            (Answer(200, b"[]"), FlagError),
            (Answer(200, b""), FlagError),
        ],
    )
    def test_bad_answer_is_an_error_of_this_evaluation(self, fake, reply, kind):
        """The reason is ERROR; nothing of the answer is quoted."""
        flags = Flags("a", "b", "c")
        flags.enabled("on")
        fake.reply = reply
        found = flags.evaluate("checkout", {"tier": "gold"})

        assert "ERROR" == found.reason
        assert isinstance(found.error, kind)
        assert "secret" not in str(found.error)
        assert flags.enabled("on")

    def test_names_are_escaped(self, fake):
        """A name cannot leave its place in the path."""
        with pytest.raises(NotFoundError):
            Flags("a?x", "b c", "ü").enabled("on")

        assert (
            "/applications/a%3Fx/environments/b%20c/configurations/%C3%BC"
            == (fake.requests[-1][0])
        )


class TestConfiguration:
    """Any configuration comes over the agent, too."""

    def test_document_with_its_version(self, fake):
        """The header ConfigurationVersion is the version."""
        one = Configuration("a", "b", "c", transform="json")

        assert DEFAULTS == one.value
        assert "7" == one.version

    def test_bytes(self, fake):
        """What is not UTF-8 is bytes."""
        fake.reply = Answer(200, b"\xff", {})

        assert b"\xff" == Configuration("a", "b", "c", transform="binary").value

    def test_no_agent(self):
        """Where no agent listens the error says so."""
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))  # not listening: connections are refused
            port = held.getsockname()[1]
            lambda_ext.configure(flags_source="agent", agent_port=port)
            with pytest.raises(SourceError, match=f"localhost:{port}") as caught:
                Configuration("a", "b", "c").value

        assert ("appconfig_agent", True) == (
            caught.value.source,
            caught.value.transient,
        )


def test_deadline_is_for_the_whole_request():
    """An agent that sends a byte now and then does not hold an evaluation."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def drip():
        peer, _ = listener.accept()
        with peer:
            peer.recv(4096)
            peer.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
            while not done.wait(0.02):
                try:
                    peer.sendall(b"x")
                except OSError:
                    return

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    try:
        source = Agent(listener.getsockname()[1])
        key = keys.configuration(source.scope, "a", "b", "c")
        ((_, outcome),) = source.fetch([key], 0.2).items()
    finally:
        done.set()
        listener.close()
    thread.join(30)

    assert isinstance(outcome, SourceTimeoutError)


SENT = st.text(max_size=6) | st.integers(-(2**63), 2**63 - 1)


@given(st.dictionaries(st.text(max_size=4), SENT, max_size=3))
def test_header_is_never_another_context(context):
    """What is sent reads back as exactly what was meant."""
    try:
        headers = agent._headers(context, "f")
    except FlagError:
        return

    sent = "".join(f"{name}: {value}\r\n" for name, value in headers).encode("latin-1")
    lines = sent.split(b"\r\n")[:-1]
    read = {}
    for line in lines:
        name, _, value = line.decode("latin-1").partition(":")
        assert "context" == name
        for part in value.strip().split(","):
            key, _, text = part.partition("=")
            read[key] = text
    assert len(context) == len(lines)
    assert {key: str(value) for key, value in context.items()} == read
