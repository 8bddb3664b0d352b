"""A batch answers as single calls would, for every mix of what can be asked."""

from __future__ import annotations

from unittest import mock

from aws_model import Parameters, Secrets
from helpers import fetch_all
from hypothesis import given
from hypothesis import strategies as st

from lambda_ext.exceptions import LambdaExtError
from lambda_ext.lifecycle import clock, phases
from lambda_ext.values import keys, store
from lambda_ext.values.batches import get_parameters, get_secrets
from lambda_ext.values.getters import get_parameter, get_secret
from lambda_ext.values.sources import parameter_store, secrets_manager

NUMBERS = st.integers(0, 24)  # more than a batch, and some that do not exist
SECRETS = 22
PARAMETERS = 13


def secrets_way(denied, deleted):
    way = Secrets({f"s{n}": [f"old{n}", f"v{n}"] for n in range(SECRETS)})
    way.denied_names = {f"s{n}" for n in denied}
    way.deleted = {f"s{n}" for n in deleted}
    return way


def parameters_way(denied, selectors):
    way = Parameters(
        {f"/p/{n}": [f"old{n}", f"v{n}"] for n in range(PARAMETERS)},
        labels={"stable": 1},
        selectors=selectors,
    )
    way.denied_names = {f"/p/{n}" for n in denied}
    way.secure = {f"/p/{n}" for n in range(0, PARAMETERS, 2)}
    return way


def outcome(read):
    """Return what a read brings: a value, or the class and code of its error."""
    try:
        return read()
    except LambdaExtError as exc:
        return type(exc), exc.code, exc.key


def fetched(source, wanted):
    """Return the outcome of each of *wanted*, as the loader would have it."""
    found = {}
    for call in source.plan(wanted):
        try:
            found.update(fetch_all(source, call))
        except LambdaExtError as exc:
            found.update(dict.fromkeys(call, exc))
    # GetParameters does not tell a missing name from a missing version.
    return {
        key: (type(result), result.code.replace("Version", ""))
        if isinstance(result, LambdaExtError)
        else (result.value, result.version, result.arn)
        for key, result in found.items()
    }


secret_forms = st.lists(
    st.tuples(
        NUMBERS,
        st.sampled_from(["name", "arn", "partial"]),
        st.sampled_from([None, "AWSCURRENT", "AWSPREVIOUS", "id"]),
    ),
    max_size=45,
)
parameter_forms = st.lists(
    st.tuples(
        NUMBERS,
        st.sampled_from(["name", "arn"]),
        st.sampled_from(["", ":1", ":01", ":2", ":9", ":stable", ":nope"]),
        st.booleans(),
    ),
    max_size=45,
)


@given(secret_forms, st.sets(NUMBERS), st.sets(NUMBERS), st.booleans())
def test_secrets(asked, denied, deleted, may_batch):
    """Names, ARNs, partial ARNs, versions, duplicates, errors: one answer each."""
    way = secrets_way(denied, deleted)
    if not may_batch:
        way.denied_operations = {"BatchGetSecretValue"}
    with mock.patch.object(secrets_manager, "transport", return_value=way):
        source = secrets_manager.SecretsManager()
    wanted = {}
    for number, form, version in asked:
        name = f"s{number}"
        arn = way.arn(name)
        name = {"name": name, "arn": arn, "partial": arn[:-7]}[form]
        if version == "id":
            key = keys.secret(source.scope, name, way.version_id(name, 1))
        else:
            key = keys.secret(source.scope, name, None, version)
        wanted[key] = None
    wanted = list(wanted)

    together = fetched(source, wanted)
    batches = sum(operation.startswith("Batch") for operation in way.operations)
    way.calls.clear()
    one_by_one = {}
    for key in wanted:
        one_by_one.update(fetched(source, [key]))

    assert one_by_one == together
    current = sum(key.version is None and key.stage is None for key in wanted)
    # Each name comes in up to three forms, of which no two share a call.
    assert batches <= current // 20 + 3


@given(parameter_forms, st.sets(NUMBERS), st.booleans(), st.booleans())
def test_parameters(asked, denied, may_batch, selectors):
    """Names, ARNs, versions, labels, duplicates, decryption, errors."""
    way = parameters_way(denied, selectors)
    if not may_batch:
        way.denied_operations = {"GetParameters"}
    with mock.patch.object(parameter_store, "transport", return_value=way):
        source = parameter_store.ParameterStore()
    wanted = {}
    for number, form, selector, decrypt in asked:
        name = f"/p/{number}"
        name = {"name": name, "arn": way.arn(name)}[form]
        wanted[keys.parameter(source.scope, name + selector, decrypt=decrypt)] = None
    wanted = list(wanted)

    together = fetched(source, wanted)
    one_by_one = {}
    for key in wanted:
        one_by_one.update(fetched(source, [key]))
    again = fetched(source, wanted)  # with what it has learned

    assert one_by_one == together == again


@given(secret_forms, parameter_forms)
def test_functions_for_many_agree_with_those_for_one(secrets, parameters):
    """get_secrets and get_parameters share entries with get_secret and _parameter."""
    ways = {"secretsmanager": secrets_way((), ()), "ssm": parameters_way((), True)}
    by_name = lambda service, **_: ways[service]  # noqa: E731
    clock.reset()
    phases.reset()
    store.reset()
    with (
        mock.patch.object(secrets_manager, "transport", by_name),
        mock.patch.object(parameter_store, "transport", by_name),
    ):
        arn = ways["secretsmanager"].arn
        names = [
            {"name": f"s{n}", "arn": arn(f"s{n}"), "partial": arn(f"s{n}")[:-7]}[form]
            for n, form, _ in secrets
            if n < SECRETS
        ]
        many = get_secrets(names)
        calls = len(ways["secretsmanager"].calls)
        assert {name: get_secret(name) for name in names} == many
        assert calls == len(ways["secretsmanager"].calls)

        names = [
            f"/p/{n}{selector}"
            for n, _, selector, _ in parameters
            if n < PARAMETERS and selector not in (":9", ":nope")
        ]
        many = get_parameters(names)
        calls = len(ways["ssm"].calls)
        assert {name: get_parameter(name) for name in names} == many
        assert calls == len(ways["ssm"].calls)
    store.reset()


# Names and ARNs that are easily taken for each other ---------------------------

ABROAD = "arn:aws:secretsmanager:eu-central-1:999999999999:secret:"
SHARED = "arn:aws:ssm:eu-central-1:999999999999:parameter"


def confusable_secrets():
    """Return secrets whose ARNs look like those of others, and what names them."""
    way = Secrets({name: name for name in ("app", "app-secret", "db", "app-secret-a")})
    way.suffixes = {"app": "secret", "app-secret": "ZZZZZZ"}
    way.foreign = {
        ABROAD + "db-BBBBBB": "db abroad",
        ABROAD + "app-secret": "app abroad",
        ABROAD + "app-secret-ZZZZZZ": "app-secret abroad",
    }
    arns = [way.arn(name) for name in way.secrets]
    partial = [arn[:-7] for arn in arns]
    return way, [*way.secrets, *arns, *partial, *way.foreign, "gone"]


def confusable_parameters(selectors):
    """Return parameters of two accounts, two of them with one ARN."""
    way = Parameters(
        {name: ["old " + name, name] for name in ("/p", "p", "/a/b", "/a/b/c")},
        labels={"stable": 1},
        selectors=selectors,
    )
    way.foreign = {
        SHARED + "/p": "p abroad",
        SHARED + "/a/b": "a/b abroad",
    }
    arns = [way.arn(name) for name in way.parameters]
    named = [*way.parameters, *arns]
    versions = [name + tail for name in named for tail in (":1", ":2", ":stable")]
    return way, [*named, *versions, *way.foreign, "/gone"]


@st.composite
def confused(draw, confusable):
    """Return a way, what is asked of it, and what a batch of it leaves out."""
    way, names = confusable
    asked = draw(st.lists(st.sampled_from(names), min_size=1, max_size=30, unique=True))
    way.omitted = draw(st.sets(st.sampled_from(names), max_size=4))
    ranks = draw(st.permutations(range(len(names) * 2)))
    way.order = lambda found: sorted(
        found, key=lambda name: ranks[sorted(found).index(name)]
    )
    return way, asked


def single_read(way, call, key):
    """Return what one call for *key* alone brings, from every source."""
    try:
        answer = way.call(call, {**key, **({} if "SecretId" in key else DECRYPT)})
    except LambdaExtError:
        return None
    answer = answer.get("Parameter", answer)
    return answer.get("SecretString") or answer["Value"]


DECRYPT = {"WithDecryption": True}


def value_or_none(outcome):
    """Return the value of an answer, None for an error."""
    return None if isinstance(outcome, LambdaExtError) else outcome.value


@given(st.data())
def test_no_secret_is_given_to_another_name(data):
    """Names beside ARNs of other accounts, ARNs that end like names, omissions."""
    way, asked = data.draw(confused(confusable_secrets()))
    with mock.patch.object(secrets_manager, "transport", return_value=way):
        source = secrets_manager.SecretsManager()
    wanted = [keys.secret(source.scope, name) for name in asked]
    expected = [
        single_read(way, "GetSecretValue", {"SecretId": name}) for name in asked
    ]

    planned = {}
    for call in source.plan(wanted):
        planned.update(fetch_all(source, call))
    assert expected == [value_or_none(planned[key]) for key in wanted]
    at_once = fetch_all(source, wanted)  # by a caller that plans nothing
    assert expected == [value_or_none(at_once[key]) for key in wanted]


@given(st.data(), st.booleans())
def test_no_parameter_is_given_to_another_name(data, selectors):
    """Names beside ARNs of other accounts, versions, labels, "x" beside "/x"."""
    way, asked = data.draw(confused(confusable_parameters(selectors)))
    with mock.patch.object(parameter_store, "transport", return_value=way):
        source = parameter_store.ParameterStore()
    wanted = [keys.parameter(source.scope, name) for name in asked]
    expected = [single_read(way, "GetParameter", {"Name": name}) for name in asked]

    planned = {}
    for call in source.plan(wanted):
        planned.update(fetch_all(source, call))
    assert expected == [value_or_none(planned[key]) for key in wanted]
    at_once = fetch_all(source, wanted)
    assert expected == [value_or_none(at_once[key]) for key in wanted]


@given(st.data(), st.booleans())
def test_no_name_finds_the_value_of_another_in_memory(data, batched):
    """After any reads, together or one by one, each name has its own value."""
    secrets, names = data.draw(confused(confusable_secrets()))
    parameters, paths = data.draw(confused(confusable_parameters(selectors=True)))
    ways = {"secretsmanager": secrets, "ssm": parameters}
    reads = (
        (secrets, "GetSecretValue", "SecretId", names, get_secrets, get_secret),
        (parameters, "GetParameter", "Name", paths, get_parameters, get_parameter),
    )
    clock.reset()
    phases.reset()
    store.reset()
    with (
        mock.patch.object(secrets_manager, "transport", lambda name, **_: ways[name]),
        mock.patch.object(parameter_store, "transport", lambda name, **_: ways[name]),
    ):
        for way, operation, member, asked, many, one in reads:
            truth = {
                name: single_read(way, operation, {member: name}) for name in asked
            }
            there = {name: value for name, value in truth.items() if value is not None}
            if batched:
                assert there == many(there)
            assert there == {name: one(name) for name in there}
            assert there == {name: one(name, force_fetch=True) for name in there}
            assert there == {name: one(name) for name in there}
    store.reset()
