"""How often and how long AWS is asked."""

from __future__ import annotations

import pytest

from lambda_ext import exceptions
from lambda_ext.aws import errors, retries
from lambda_ext.lifecycle import clock


@pytest.fixture(name="slept", autouse=True)
def _slept(time, monkeypatch):
    """The seconds of each pause; a pause moves the clock."""
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        time.advance(seconds)

    monkeypatch.setattr(retries, "sleep", sleep)
    return slept


class Script(retries.Retrying):
    """A way that answers what the script says, and says how it was asked."""

    __slots__ = ("answers", "asked")

    def __init__(self, *answers, attempts=retries.ATTEMPTS):
        super().__init__("ssm", attempts)
        self.answers = list(answers)
        self.asked = []

    def attempt(self, operation, parameters, left_s):
        self.asked.append(round(left_s, 6))
        answer = self.answers.pop(0)
        if callable(answer):
            answer = answer()
        if isinstance(answer, Exception):
            raise answer
        return answer


GOOD = {"Parameter": {"Name": "/a"}}
ASK = ("GetParameter", {"Name": "/a"})


def throttled(retry_after_s=None):
    """Return the error of a call that came too soon."""
    error = errors.from_code("ThrottlingException", "", service="ssm", key="/a")
    error.retry_after_s = retry_after_s
    return error


def denied():
    """Return an error that stays."""
    return errors.from_code("AccessDeniedException", "", service="ssm", key="/a")


def broken():
    """Return the error of a connection that broke."""
    return errors.unreachable("reset", service="ssm", key="/a")


def test_passing_error_is_tried_again_after_a_random_pause(slept):
    """Two broken connections cost two pauses, each below its bound."""
    script = Script(broken(), broken(), GOOD)

    assert GOOD == script.call(*ASK)
    assert 3 == len(script.asked)
    assert 2 == len(slept)
    assert 0 <= slept[0] <= retries.PAUSE_S
    assert 0 <= slept[1] <= retries.PAUSE_S * 2


def test_attempts_are_used_up_and_the_last_error_raised():
    """After the third error there is no fourth attempt."""
    last = broken()
    script = Script(broken(), broken(), last)

    with pytest.raises(exceptions.SourceError) as caught:
        script.call(*ASK)
    assert last is caught.value


def test_throttling_is_tried_longer_with_longer_pauses(slept):
    """A throttled call is repeated while there is time, and more slowly."""
    script = Script(*(throttled() for _ in range(retries.THROTTLED_ATTEMPTS)))

    with pytest.raises(exceptions.ThrottledError):
        script.call(*ASK)

    assert retries.ATTEMPTS < len(script.asked) <= retries.THROTTLED_ATTEMPTS
    assert sum(slept) < retries.BUDGET_S
    for retry, pause in enumerate(slept):
        longest = retries.THROTTLED_PAUSE_S * 2**retry
        assert pause <= min(longest, retries.LONGEST_THROTTLED_PAUSE_S)


def test_lasting_error_is_not_tried_again(slept):
    """A refusal is raised at once."""
    script = Script(denied())

    with pytest.raises(exceptions.AccessDeniedError):
        script.call(*ASK)
    assert [] == slept


def test_retry_after_is_honoured(slept):
    """When AWS names the pause, that pause is made."""
    script = Script(throttled(2.0), GOOD)

    script.call(*ASK)

    assert [2.0] == slept


def test_retry_after_past_the_budget_is_not_waited_for(slept):
    """A pause that would use up the time is not begun."""
    script = Script(throttled(60.0))

    with pytest.raises(exceptions.ThrottledError):
        script.call(*ASK)
    assert [] == slept


def test_budget_is_the_least_of_grant_invocation_and_default():
    """The shortest limit decides, and some of the invocation is left over."""
    assert retries.BUDGET_S == retries.budget()
    assert retries.BUDGET_S == retries.budget(60.0)
    assert 1.5 == retries.budget(1.5)
    clock.begin_invocation(3.0)
    assert pytest.approx(3.0 - retries.RESERVE_S) == retries.budget()
    assert 1.5 == retries.budget(1.5)
    clock.begin_invocation(0.1)
    assert pytest.approx(0.05) == retries.budget()


def test_no_time_left_means_no_call():
    """With a deadline of zero AWS is not asked, and the error says why."""
    script = Script()

    with pytest.raises(exceptions.SourceTimeoutError) as caught:
        script.call(*ASK, timeout_s=0.0)
    assert "no time left" in str(caught.value)
    assert "/a" == caught.value.key
    assert caught.value.transient


def test_attempt_learns_what_is_left(time):
    """The second attempt has the first one's time less."""

    def slow():
        time.advance(1.0)
        return throttled(0.5)

    script = Script(slow, GOOD)

    script.call(*ASK, timeout_s=4.0)

    assert [4.0, 2.5] == script.asked


def test_freeze_in_between_earns_one_more_try(time, slept):
    """A signature made before a freeze and refused after it is made anew."""

    def frozen():
        time.step(900.0)
        return errors.from_code(
            "InvalidSignatureException", "", service="ssm", key="/a"
        )

    script = Script(frozen, GOOD)

    assert GOOD == script.call(*ASK)
    assert [] == slept


def test_try_after_a_freeze_has_the_time_of_the_thaw(time):
    """The time that was granted before the freeze is not what is left after it."""

    def frozen():
        time.advance(7.5)
        time.step(900.0)
        return throttled()

    script = Script(frozen, GOOD)
    script.call(*ASK)

    assert [retries.BUDGET_S, retries.BUDGET_S] == script.asked


def test_freeze_earns_one_try_only(time):
    """What is refused again after the thaw is refused."""

    def frozen():
        time.step(900.0)
        return denied()

    script = Script(frozen, frozen, GOOD)

    with pytest.raises(exceptions.AccessDeniedError):
        script.call(*ASK)


def test_freeze_helps_also_where_attempts_are_not_ours(time):
    """The one try after a thaw is made for a client of the user's own too."""

    def frozen():
        time.step(900.0)
        return throttled()

    script = Script(frozen, throttled(), attempts=1)

    with pytest.raises(exceptions.ThrottledError):
        script.call(*ASK)
    assert 2 == len(script.asked)


@pytest.mark.parametrize("garbage", [{}, {"message": "<html>"}])
def test_answer_without_its_essential_field_is_tried_again(garbage):
    """What botocore makes of a body that is no answer is not taken for one."""
    script = Script(garbage, garbage, garbage)

    with pytest.raises(exceptions.SourceError, match="it has no Parameter") as caught:
        script.call(*ASK)
    assert caught.value.transient
    assert 3 == len(script.asked)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("2", 2.0), (" 0 ", 0.0), ("-1", None), ("1e9", None),
     ("\u0662", None), ("Wed, 21 Oct 2015 07:28:00 GMT", None), ("", None)],
)  # fmt: skip
def test_retry_after_is_plain_seconds_or_nothing(header, seconds):
    """Only digits count; everything else leaves the pause to chance."""
    assert seconds == retries.retry_after(header)


def test_jitter_is_spread_over_its_whole_range():
    """Pauses differ from each other and never pass their bound."""
    pauses = [retries.jitter(1) for _ in range(200)]

    assert len(set(pauses)) > 190
    assert max(pauses) <= 2 * retries.PAUSE_S
    assert retries.jitter(50) <= retries.LONGEST_PAUSE_S
