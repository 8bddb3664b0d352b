"""AppConfig's sessions: tokens, intervals, empty bodies, and what goes wrong."""

from __future__ import annotations

import os

import boto3
import pytest
from helpers import run_threads

import lambda_ext
from lambda_ext.exceptions import AccessDeniedError, NotFoundError, SourceError
from lambda_ext.flags.session import AppConfig, counters
from lambda_ext.testing import simulate_restore
from lambda_ext.values import keys

NAME = "orders/prod/features"
START, GET = "StartConfigurationSession", "GetLatestConfiguration"
DAY_S = 24 * 3600.0


@pytest.fixture(name="source", params=["light", "boto3"])
def _source(request, appconfig):
    """The source over both transports."""
    lambda_ext.configure(transport=request.param)
    return AppConfig()


@pytest.fixture(name="light")
def _light(appconfig):
    """The source over the light transport."""
    lambda_ext.configure(transport="light")
    return AppConfig()


def poll(source, name=NAME):
    """Return (text, version) of what the source says."""
    key = keys.configuration(source.scope, *name.split("/"))
    ((_, outcome),) = source.fetch([key], None).items()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome.value, outcome.version


class TestSession:
    """One session per configuration, from token to token."""

    def test_first_poll_is_two_calls(self, source, appconfig):
        """A session is started and its first document fetched, with its label."""
        appconfig.deploy(NAME, '{"a": 1}', label="v1")

        assert ('{"a": 1}', "v1") == poll(source)
        assert [START, GET] == appconfig.operations()

    def test_unchanged_document_comes_empty(self, source, appconfig, time):
        """An empty answer keeps the last document and its label; one call."""
        appconfig.deploy(NAME, "one", label="v1")
        poll(source)
        time.advance(60)

        assert ("one", "v1") == poll(source)
        assert [START, GET, GET] == appconfig.operations()
        assert 1 == counters.unchanged

    def test_new_version_replaces_it(self, source, appconfig, time):
        """What was deployed meanwhile comes with the next poll, tokens renewed."""
        seen = []
        for text in ("one", "two", "three"):
            appconfig.deploy(NAME, text)
            seen.append(poll(source)[0])
            time.advance(60)

        assert ["one", "two", "three"] == seen
        assert {200, 201} == {status for _, _, status in appconfig.calls}

    def test_two_configurations_have_two_sessions(self, source, appconfig):
        """Neither the first application nor the first environment wins."""
        names = ["a/dev/x", "a/prod/x", "b/dev/x", "a/dev/y"]
        for name in names:
            appconfig.deploy(name, name)

        assert names == [poll(source, name)[0] for name in names]

    def test_document_that_is_not_text_is_bytes(self, light, appconfig):
        """What is not UTF-8 is handed on as it is."""
        appconfig.deploy(NAME, b"\xff\x00")

        assert b"\xff\x00" == poll(light)[0]

    def test_interval_of_the_session_is_the_option_s(self, light, appconfig):
        """AppConfig is asked for polls as frequent as `poll_interval` says."""
        asked = []
        for given in (1, 20, 45.5, None):
            lambda_ext.configure(poll_interval=given)
            appconfig.deploy(f"a/b/{given}", "x")
            poll(light, f"a/b/{given}")
            session = light.session(f"a/b/{given}")
            asked.append(appconfig._tokens[session._token][0].required_s)

        assert [15, 20, 45, 86400] == asked

    def test_gradual_deployment(self, appconfig, time):
        """Each session keeps to its version until the deployment goes on."""
        appconfig.deploy(NAME, "old", label="v1")
        sources = [AppConfig() for _ in range(20)]
        appconfig.deploy(NAME, "new", label="v2", percent=50)
        first = [poll(source) for source in sources]
        time.advance(60)
        second = [poll(source) for source in sources]
        appconfig.finish(NAME)
        time.advance(60)

        assert {("old", "v1"), ("new", "v2")} == set(first)
        assert first == second
        assert {("new", "v2")} == {poll(source) for source in sources}

    def test_deployment_is_rolled_back(self, light, appconfig, time):
        """What a rollback restores comes with its own label."""
        appconfig.deploy(NAME, "old", label="v1")
        seen = [poll(light)]
        appconfig.deploy(NAME, "new", label="v2", percent=99.9)
        time.advance(60)
        seen.append(poll(light))
        appconfig.roll_back(NAME)
        time.advance(60)
        seen.append(poll(light))

        assert [("old", "v1"), ("new", "v2"), ("old", "v1")] == seen


class TestInterval:
    """NextPollIntervalInSeconds is obeyed."""

    def test_nothing_is_asked_before_it_is_time(self, source, appconfig, time):
        """A poll that comes early is answered from memory."""
        appconfig.interval_s = 120
        appconfig.deploy(NAME, "one")
        poll(source)
        appconfig.deploy(NAME, "two")
        time.advance(119)

        assert "one" == poll(source)[0]
        time.advance(1)
        assert "two" == poll(source)[0]
        assert [START, GET, GET] == appconfig.operations()

    def test_interval_that_grows(self, light, appconfig, time):
        """The last answer's interval counts, not the first's."""
        appconfig.deploy(NAME, "x")
        for interval_s in (30, 300, 3000):
            appconfig.interval_s = interval_s
            poll(light)
            time.advance(interval_s - 1)
            poll(light)
            time.advance(1)

        assert [START, GET, GET, GET] == appconfig.operations()
        assert 0 == counters.too_early

    def test_too_early_counts_as_unchanged(self, source, appconfig, time):
        """AppConfig's refusal keeps the document and the session."""
        appconfig.deploy(NAME, "one")
        poll(source)
        for each, _ in appconfig._tokens.values():
            each.not_before += 500  # AppConfig's clock is another
        time.advance(60)

        assert "one" == poll(source)[0]
        assert 1 == counters.too_early
        time.advance(600)
        appconfig.deploy(NAME, "two")
        assert "two" == poll(source)[0]
        assert [START, GET, GET, GET] == appconfig.operations()

    def test_freeze_counts(self, light, appconfig, time):
        """Frozen time passes for AppConfig, too."""
        appconfig.deploy(NAME, "one")
        poll(light)
        appconfig.deploy(NAME, "two")
        time.freeze(3600)

        assert "two" == poll(light)[0]

    def test_reader_that_comes_again_is_there_once(self, light):
        """As a handle does whenever options change."""

        class Reader:
            interval_s = 20.0

        reader = Reader()
        for _ in range(3):
            light.read_by(NAME, reader)

        assert 1 == len(light.session(NAME).readers)

    def test_most_frequent_reader_decides(self, light, appconfig):
        """AppConfig is asked for the shortest interval that a handle wants."""

        class Reader:
            """Wants a poll now and then."""

            def __init__(self, interval_s):
                self.interval_s = interval_s

        readers = [Reader(600.0), Reader(20.0), Reader(None)]
        for reader in readers:
            light.read_by(NAME, reader)
        appconfig.deploy(NAME, "x")
        poll(light)
        session = appconfig._tokens[light.session(NAME)._token][0]

        assert 20 == session.required_s


class TestTokens:
    """What becomes of a token that is refused."""

    def test_expired_token_starts_one_new_session(self, source, appconfig, time):
        """After a day of silence the next poll recovers by itself."""
        appconfig.deploy(NAME, "one", label="v1")
        poll(source)
        time.freeze(DAY_S)

        assert ("one", "v1") == poll(source)
        assert [START, GET, GET, START, GET] == appconfig.operations()
        assert 1 == counters.renewed
        time.advance(60)
        poll(source)
        assert [START, GET, GET, START, GET, GET] == appconfig.operations()

    def test_corrupted_token_starts_one_new_session(self, source, appconfig, time):
        """A token that AppConfig does not know is replaced within the poll."""
        appconfig.deploy(NAME, "one")
        poll(source)
        appconfig.forget_tokens()
        appconfig.deploy(NAME, "two")
        time.advance(60)

        assert "two" == poll(source)[0]

    def test_new_session_is_refused_only_once(self, light, appconfig, time):
        """A second refusal within one poll is the error; no loop."""
        appconfig.deploy(NAME, "one")
        poll(light)
        time.advance(60)
        appconfig.fail(400, "BadRequestException", "no", times=1)
        poll(light)
        time.advance(60)
        before = len(appconfig.calls)
        appconfig.forget_tokens()
        original = appconfig._latest
        appconfig._latest = lambda token: original("none")

        with pytest.raises(SourceError) as caught:
            poll(light)
        assert [GET, START, GET] == appconfig.operations()[before:]
        assert caught.value.transient

    def test_new_session_that_is_refused_at_once_is_not_repeated(
        self, light, appconfig
    ):
        """A session whose first token is refused is an error, not a loop."""
        appconfig.deploy(NAME, "one")
        original = appconfig._latest
        appconfig._latest = lambda token: original("none")

        with pytest.raises(SourceError, match="Corrupted"):
            poll(light)
        assert [START, GET] == appconfig.operations()

    @pytest.mark.parametrize(
        ("status", "code"),
        [(429, "ThrottlingException"), (500, "InternalServerException")],
    )
    def test_passing_failure_keeps_the_token(
        self, light, appconfig, time, status, code
    ):
        """A throttled poll is tried again with the same session."""
        appconfig.deploy(NAME, "one")
        poll(light)
        time.advance(60)
        appconfig.fail(status, code, times=20)

        with pytest.raises(SourceError) as caught:
            poll(light)
        assert caught.value.transient
        appconfig._faults.clear()
        appconfig.deploy(NAME, "two")
        assert "two" == poll(light)[0]
        assert 1 == appconfig.operations().count(START)

    def test_token_that_was_used_up_unseen(self, light, appconfig, time, monkeypatch):
        """The answer was lost: the token is sent once more, then replaced."""
        appconfig.deploy(NAME, "one")
        poll(light)
        time.advance(60)
        appconfig._latest(light.session(NAME)._token)  # this answer is lost

        assert "one" == poll(light)[0]
        assert 1 == counters.renewed

    def test_interrupted_poll_loses_its_token_only(self, light, appconfig, time):
        """What a signal handler raises in a poll costs a new session, no more."""

        class Interrupt(BaseException):
            """Raised by a signal handler."""

        appconfig.deploy(NAME, "one")
        poll(light)
        time.advance(60)
        session = light.session(NAME)
        way, session._transport = session._transport, Interrupted(Interrupt)
        with pytest.raises(Interrupt):
            poll(light)
        session._transport = way

        assert "one" == poll(light)[0]
        assert 2 == appconfig.operations().count(START)

    def test_two_polls_at_once_share_no_token(self, light, appconfig, time):
        """Polls that overlap use different tokens; none is sent twice."""
        appconfig.deploy(NAME, "one")
        poll(light)
        time.advance(60)
        results = run_threads(8, lambda _: poll(light)[0])

        assert ["one"] * 8 == results
        assert {200, 201} == {status for _, _, status in appconfig.calls}


class Interrupted:
    """A transport during whose calls a signal handler raises."""

    def __init__(self, error):
        self.error = error

    def call(self, *args, **kwargs):
        """Raise."""
        raise self.error


class TestFailures:
    """What is raised, and what survives."""

    def test_unknown_configuration(self, source, appconfig):
        """What does not exist is not found, by its own name."""
        with pytest.raises(NotFoundError) as caught:
            poll(source)

        assert NAME == caught.value.key
        assert "appconfig" == caught.value.source
        assert not caught.value.transient

    def test_empty_first_document_says_so(self, source, appconfig, time):
        """No document at all is an error in words, and not the session's end."""
        appconfig.deploy(NAME, "")

        with pytest.raises(SourceError, match="'orders/prod/features' is empty"):
            poll(source)
        appconfig.deploy(NAME, "one")
        time.advance(60)
        assert "one" == poll(source)[0]

    def test_empty_first_body_of_a_later_session_keeps_the_document(
        self, light, appconfig, time
    ):
        """A new session that brings nothing does not take the document away."""
        appconfig.deploy(NAME, "one")
        poll(light)
        appconfig.forget_tokens()
        appconfig.deploy(NAME, "")
        time.advance(60)

        assert "one" == poll(light)[0]

    @pytest.mark.parametrize(
        ("status", "code", "kind"),
        [
            (403, "AccessDeniedException", AccessDeniedError),
            (404, "ResourceNotFoundException", NotFoundError),
        ],
    )
    def test_error_with_a_document_at_hand_may_pass(
        self, light, appconfig, time, status, code, kind
    ):
        """Once there is a good document no error of AWS's is final."""
        appconfig.deploy(NAME, "one")
        poll(light)
        time.advance(60)
        appconfig.fail(status, code, times=2)

        with pytest.raises(kind) as caught:
            poll(light)
        assert caught.value.transient

    @pytest.mark.logs
    def test_document_that_cannot_be_read_replaces_nothing(
        self, light, appconfig, time, caplog
    ):
        """It is an error that may pass until the next version; counted and logged."""

        class Reader:
            """Reads what does not say secret."""

            interval_s = 45.0

            def accept(self, raw):
                """Refuse it in words that quote it."""
                if "secret" in raw:
                    raise ValueError(raw)

        reader = Reader()
        appconfig.deploy(NAME, "one")
        light.read_by(NAME, reader)
        poll(light)
        appconfig.deploy(NAME, "broken secret", label="v9")
        for _ in range(2):  # the second time AppConfig says: unchanged
            time.advance(60)
            with pytest.raises(SourceError, match=r"'v9' .* cannot be read") as caught:
                poll(light)
            assert caught.value.transient
        appconfig.deploy(NAME, "one again")
        time.advance(60)

        assert "one again" == poll(light)[0]
        assert 1 == counters.broken
        assert "lambda_ext.broken_document" in caplog.text
        assert "secret" not in caplog.text + repr(caught.value)
        assert caught.value.__context__ is None

    def test_one_reader_that_accepts_is_enough(self, light, appconfig, time):
        """A document that suits one of its readers is not withheld from it."""

        class Reader:
            """Reads everything, or nothing."""

            interval_s = 45.0

            def __init__(self, error=None):
                self.error = error

            def accept(self, raw):
                """Raise what was given."""
                if self.error:
                    raise self.error

        readers = Reader(ValueError()), Reader()
        for reader in readers:
            light.read_by(NAME, reader)
        appconfig.deploy(NAME, "one")
        poll(light)
        appconfig.deploy(NAME, "two")
        time.advance(60)

        assert "two" == poll(light)[0]

    def test_reader_that_is_gone_is_not_asked(self, light, appconfig, time):
        """The source keeps no handle alive."""

        class Reader:
            """Refuses everything."""

            interval_s = 45.0

            def accept(self, raw):
                """Raise."""
                raise ValueError

        light.read_by(NAME, Reader())
        appconfig.deploy(NAME, "one")
        poll(light)
        appconfig.deploy(NAME, "two")
        time.advance(60)

        assert "two" == poll(light)[0]

    def test_appconfig_is_left_alone_after_failures(self, light, appconfig, time):
        """From the second failure in a row on, the next calls fail at once."""
        errors = []
        for _ in range(10):
            with pytest.raises(NotFoundError) as caught:
                poll(light)
            errors.append(caught.value)
        assert [START, START] == appconfig.operations()
        assert 10 == len({id(error) for error in errors})
        time.advance(1)
        with pytest.raises(NotFoundError):
            poll(light)
        time.advance(1.9)
        with pytest.raises(NotFoundError):
            poll(light)
        assert [START] * 3 == appconfig.operations()
        appconfig.deploy(NAME, "one")
        time.advance(0.1)

        assert "one" == poll(light)[0]

    def test_pause_is_bounded(self, light, appconfig, time):
        """AppConfig is asked again at least every half minute."""
        for _ in range(20):
            with pytest.raises(NotFoundError):
                poll(light)
            time.advance(30)

        assert [START] * 20 == appconfig.operations()


class TestLife:
    """Snapshots, forks, regions."""

    def test_snapshot_takes_no_token_and_no_document_along(self, light, appconfig):
        """Of what is restored from one snapshot each has a session of its own."""
        appconfig.deploy(NAME, "one")
        poll(light)
        simulate_restore()

        assert light.session(NAME).answer is None
        poll(light)
        assert [START, GET, START, GET] == appconfig.operations()

    def test_forked_child_begins_its_own_session(self, light, appconfig):
        """A child sends no token of its parent's."""
        appconfig.deploy(NAME, "one")
        poll(light)
        pid = os.fork()
        if not pid:
            session = light.session(NAME)
            os._exit(0 if session.answer is None and not session._token else 1)
        _, status = os.waitpid(pid, 0)

        assert 0 == os.waitstatus_to_exitcode(status)
        assert light.session(NAME).answer is not None

    def test_client_of_the_user_s_is_asked(self, appconfig):
        """A boto3 client given by the user makes the calls."""
        appconfig.deploy(NAME, "one")
        client = boto3.client("appconfigdata")

        assert "one" == poll(AppConfig(client=client))[0]

    def test_region_is_its_own(self, source, monkeypatch):
        """AppConfig may be in another region than the function."""
        monkeypatch.delenv("AWS_ENDPOINT_URL_APPCONFIGDATA")
        lambda_ext.configure(appconfig_region="ap-south-1")
        lambda_ext.config.get("transport")
        from lambda_ext.aws import transport

        transport.reset()

        assert ("appconfigdata", "ap-south-1") == AppConfig().scope[:2]

    def test_repr_says_no_token(self, light, appconfig):
        """Neither source nor session shows a token or a document."""
        appconfig.deploy(NAME, "secret-text", label="v1")
        poll(light)
        shown = repr(light) + repr(light.session(NAME))

        assert "secret-text" not in shown
        assert light.session(NAME)._token not in shown
        assert "version='v1'" in shown
