"""Equal requests have equal keys, and different requests different ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lambda_ext.values import keys

SCOPES = st.sampled_from(["one", "two"])
NAMES = st.sampled_from(["a", "b", "a/b", "A"])
IDS = st.none() | st.sampled_from(["0" * 32, "1" * 32])
STAGES = st.none() | st.sampled_from(["AWSCURRENT", "AWSPREVIOUS", "mine"])
SELECTORS = st.sampled_from(["", ":1", ":01", ":2", ":prod", ":test"])

secrets = st.tuples(SCOPES, NAMES, IDS, STAGES)
parameters = st.tuples(SCOPES, NAMES, SELECTORS, st.booleans())


def secret_as_aws_sees_it(request):
    """Return what is sent: a policy may ask for a stage that is only the default."""
    scope, name, version, stage = request
    return scope, name, version, stage


def parameter_as_aws_sees_it(request):
    """Return what the service is asked: x:01 is x:1."""
    scope, name, selector, decrypt = request
    return scope, name, selector.replace(":0", ":"), decrypt


@given(secrets, secrets)
def test_secrets(one, other):
    """Two requests for secrets are one exactly if the same is sent to AWS."""
    same = secret_as_aws_sees_it(one) == secret_as_aws_sees_it(other)

    assert same == (keys.secret(*one) == keys.secret(*other))
    assert not same or hash(keys.secret(*one)) == hash(keys.secret(*other))


@given(parameters, parameters)
def test_parameters(one, other):
    """Two requests for parameters are one exactly if AWS answers both alike."""

    def key(request):
        scope, name, selector, decrypt = request
        return keys.parameter(scope, name + selector, decrypt=decrypt)

    same = parameter_as_aws_sees_it(one) == parameter_as_aws_sees_it(other)

    assert same == (key(one) == key(other))


@given(secrets, parameters)
def test_operations_never_meet(secret, parameter):
    """A secret and a parameter of one name are two values.

    A peer kept both under the text after the last slash.
    """
    scope, name, selector, decrypt = parameter

    assert keys.secret(*secret) != keys.parameter(
        scope, name + selector, decrypt=decrypt
    )


@given(parameters)
def test_selector_survives_the_way_to_aws(request):
    """What is sent is what was asked for."""
    scope, name, selector, decrypt = request
    key = keys.parameter(scope, name + selector, decrypt=decrypt)

    assert keys.parameter(scope, key.name + key.selector, decrypt=decrypt) == key


@given(st.text().filter(lambda text: ":" not in text and text != "arn"), st.text())
def test_split_loses_nothing(base, selector):
    """Only the first colon of a name divides it."""
    assert keys.split(base + ":" + selector) == (base, selector)
