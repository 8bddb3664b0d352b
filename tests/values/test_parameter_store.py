"""Parameters in few calls, each matched to the request for it."""

from __future__ import annotations

import itertools

import pytest
from aws_model import Parameters
from helpers import fetch_all

from lambda_ext.exceptions import (
    AccessDeniedError,
    NotFoundError,
    SourceError,
    ThrottledError,
)
from lambda_ext.testing import FakeClock
from lambda_ext.values import keys
from lambda_ext.values.batches import get_parameters, get_parameters_by_path
from lambda_ext.values.getters import get_parameter
from lambda_ext.values.sources import parameter_store


@pytest.fixture(params=[True, False], ids=["with Selector", "without"])
def way(request, monkeypatch):
    """Parameter Store with thirty parameters."""
    way = Parameters(
        {f"/p/{number:02}": [f"old{number}", f"v{number}"] for number in range(30)},
        labels={"stable": 1},
        selectors=request.param,
    )
    monkeypatch.setattr(parameter_store, "transport", lambda *a, **k: way)
    return way


@pytest.fixture
def source(way):
    """The source over it."""
    return parameter_store.ParameterStore()


def fetch(source, wanted):
    """Fetch *wanted* as the loader does, and return all answers."""
    found = {}
    for call in source.plan(wanted):
        found.update(fetch_all(source, call))
    return found


def named(source, *names, **options):
    """Return the keys of parameters."""
    return [keys.parameter(source.scope, name, **options) for name in names]


def test_thirty_parameters_are_three_calls(way, source):
    """Ten go in one call."""
    wanted = named(source, *way.parameters)
    found = fetch(source, wanted)

    assert ["GetParameters"] * 3 == way.operations
    assert [f"v{number}" for number in range(30)] == [
        found[key].value for key in wanted
    ]


def test_one_parameter_is_asked_for_by_itself(way, source):
    """A single name needs no batch action."""
    fetch(source, named(source, "/p/01"))

    assert [("GetParameter", {"Name": "/p/01", "WithDecryption": True})] == way.calls


def test_versions_labels_and_arns_are_matched_to_their_askers(way, source):
    """AWS answers under plain names, also where an ARN was asked for."""
    arn = way.arn("/p/01")
    names = ["/p/01", "/p/01:1", "/p/01:2", "/p/01:stable", arn, arn + ":1", "/p/02:01"]
    wanted = named(source, *names)
    found = fetch(source, wanted)

    assert ["v1", "old1", "v1", "old1", "v1", "old1", "old2"] == [
        found[key].value for key in wanted
    ]
    assert ["2", "1", "2", "1", "2", "1", "1"] == [found[key].version for key in wanted]


def test_two_versions_of_one_parameter_never_share_a_call(way, source):
    """Their answers could not be told apart where AWS sends no selector."""
    plan = source.plan(named(source, "/p/01", "/p/01:1", way.arn("/p/01") + ":2"))

    assert [1, 1, 1] == [len(call) for call in plan]


@pytest.mark.parametrize("order", [sorted, lambda names: sorted(names, reverse=True)])
def test_shared_parameter_is_not_taken_for_the_own(way, order):
    """What another account shares is asked for by ARN, and comes by a bare name."""
    shared = "arn:aws:ssm:eu-central-1:999999999999:parameter/p/01"
    way.foreign = {shared: "abroad"}
    way.order = order
    expected = {"/p/01": "v1", shared: "abroad"}

    assert expected == get_parameters(["/p/01", shared])
    assert expected == {name: get_parameter(name) for name in expected}


def test_two_parameters_with_one_arn_stay_two(way):
    """AWS writes the ARNs of "x" and "/x" alike."""
    way.parameters.update({"x": ["flat"], "/x": ["at the root"]})
    expected = {"x": "flat", "/x": "at the root"}

    assert expected == get_parameters(["x", "/x"])
    assert expected == {
        name: get_parameter(name, force_fetch=True) for name in expected
    }
    assert expected == {name: get_parameter(name) for name in expected}


def test_name_and_arn_of_one_parameter_agree(way):
    """What one of them loaded is what the other one finds."""
    names = ["/p/01", way.arn("/p/01")]
    assert dict.fromkeys(names, "v1") == get_parameters(names)

    way.parameters["/p/01"].append("new")
    assert "new" == get_parameter(names[1], force_fetch=True)
    calls = len(way.calls)
    assert ["new"] * 2 == [get_parameter(name) for name in names]
    assert calls == len(way.calls)


def test_batch_without_one_of_its_members_is_complete(way, source, monkeypatch):
    """Neither array has to be there."""
    values = [_one(Name=name, Value="of " + name) for name in ("/p/01", "/p/02")]
    wanted = named(source, "/p/01", "/p/02")
    monkeypatch.setattr(way, "GetParameters", lambda **_: {"Parameters": values})
    assert ["of /p/01", "of /p/02"] == [
        fetch(source, wanted)[key].value for key in wanted
    ]

    invalid = {"InvalidParameters": ["/p/01", "/p/02"]}
    monkeypatch.setattr(way, "GetParameters", lambda **_: invalid)
    assert [NotFoundError] * 2 == [type(fetch(source, wanted)[key]) for key in wanted]
    assert "GetParameter" not in way.operations


def test_answer_of_another_version_is_not_taken(way, source, monkeypatch):
    """Only what says that it is the version is the version."""
    answer = {"Name": "/p/01", "ARN": way.arn("/p/01"), "Value": "x", "Version": 7}
    monkeypatch.setattr(
        way,
        "GetParameters",
        lambda **_: {"Parameters": [answer], "InvalidParameters": []},
    )
    wanted = named(source, "/p/01:1", "/p/02")

    assert ["old1", "v2"] == [fetch_all(source, wanted)[key].value for key in wanted]


@pytest.mark.parametrize("selector", [":other", ":1", ":stabl"])
def test_answer_with_another_selector_is_not_taken(way, source, monkeypatch, selector):
    """Only what says that it has the label has it."""
    answer = {"Name": "/p/01", "Value": "x", "Version": 2, "Selector": selector}
    monkeypatch.setattr(way, "GetParameters", lambda **_: {"Parameters": [answer]})
    wanted = named(source, "/p/01:stable", "/p/02")

    assert ["old1", "v2"] == [fetch_all(source, wanted)[key].value for key in wanted]


@pytest.mark.parametrize("selector", [None, "", 5])
def test_answer_without_a_selector_is_taken(way, source, monkeypatch, selector):
    """Emulators send none, and no two labels of a parameter share a call."""
    answer = {"Name": "/p/01", "Value": "x", "Version": 2, "Selector": selector}
    monkeypatch.setattr(way, "GetParameters", lambda **_: {"Parameters": [answer]})
    wanted = named(source, "/p/01:stable", "/p/02")

    assert ["x", "v2"] == [fetch_all(source, wanted)[key].value for key in wanted]


@pytest.mark.parametrize("code", ["UnknownOperationException", "InvalidAction"])
def test_server_without_batches_is_asked_singly(way, source, code):
    """An emulator of AWS may not know the operation; that is remembered."""
    way.failures.append(way.error(code))
    wanted = named(source, "/p/01", "/p/02")

    assert ["v1", "v2"] == [fetch(source, wanted)[key].value for key in wanted]
    way.calls.clear()
    fetch(source, wanted)
    assert ["GetParameter"] * 2 == way.operations


def _one(**fields):
    return {"Name": "/p/01", "Value": "x", "Version": 1, **fields}


GARBAGE = [
    None, 5, "x", [], {}, _one(Value=None), _one(Value=5), _one(Value={"a": "b"}),
    _one(Value=b"x"), _one(Version=[1]), _one(Version=True), _one(ARN=5),
]  # fmt: skip


@pytest.mark.parametrize("answer", GARBAGE)
@pytest.mark.logs
def test_answer_of_a_wrong_shape_passes(way, monkeypatch, answer):
    """It is an error that may pass: the value that is remembered serves."""
    with FakeClock() as time:
        assert "v1" == get_parameter("/p/01")
        monkeypatch.setattr(way, "GetParameter", lambda **_: {"Parameter": answer})
        time.advance(301)
        assert "v1" == get_parameter("/p/01")
        with pytest.raises(SourceError, match="could not be read") as raised:
            get_parameter("/p/02")
        assert raised.value.transient


@pytest.mark.parametrize(
    "answer",
    [
        {"Parameters": [1], "InvalidParameters": []},
        {"Parameters": 5},
        {"Parameters": "x"},
        {"Parameters": [_one(Name=5)]},
        {"Parameters": [], "InvalidParameters": 5},
        {"Parameters": [_one(Value=5)]},
    ],
)
@pytest.mark.logs
def test_batch_of_a_wrong_shape_passes(way, monkeypatch, answer):
    """What is remembered outlives it, and nothing of it is handed out."""
    with FakeClock() as time:
        expected = {"/p/01": "v1", "/p/02": "v2"}
        assert expected == get_parameters([*expected])
        monkeypatch.setattr(way, "GetParameters", lambda **_: answer)
        monkeypatch.setattr(
            way, "GetParameter", lambda **_: {"Parameter": _one(Value=5)}
        )
        time.advance(301)
        assert expected == get_parameters([*expected])
        with pytest.raises(SourceError, match="could not be read") as raised:
            get_parameters([*expected], force_fetch=True)
        assert raised.value.transient


@pytest.mark.parametrize(
    "page",
    [
        {"Parameters": 5},
        {"Parameters": [1]},
        {"Parameters": [{"Value": "x"}]},
        {"Parameters": [_one(Name=5)]},
        {"Parameters": [_one(Name="/p/01:2")]},
        {"Parameters": [_one(Name="/elsewhere/01")]},
        {"Parameters": [_one(Value=5)]},
        {"Parameters": [_one(Value=None)]},
        {"Parameters": [_one()], "NextToken": 5},
        {"Parameters": [_one()], "NextToken": [1]},
        {"Parameters": [_one(Name="/p/" + "x" * 2048)]},
    ],
)
@pytest.mark.logs
def test_page_of_a_wrong_shape_passes(way, monkeypatch, page):
    """The path that is remembered serves, and nothing else changes."""
    way.parameters = {"/p/01": ["v1"], "/elsewhere/01": ["there"]}
    with FakeClock() as time:
        assert {"/p/01": "v1"} == get_parameters_by_path("/p")
        assert "there" == get_parameter("/elsewhere/01")
        monkeypatch.setattr(way, "GetParametersByPath", lambda **_: page)
        time.advance(299)
        with pytest.raises(SourceError, match="could not be read") as raised:
            get_parameters_by_path("/p", force_fetch=True)
        assert raised.value.transient
        assert {"/p/01": "v1"} == get_parameters_by_path("/p")
        assert "there" == get_parameter("/elsewhere/01")


def test_root_has_everything_below_it(way):
    """Parameters without a slash, too, if AWS says so; but none without a name."""
    way.parameters = {"/a": ["1"], "/a/b": ["2"]}
    way.GetParametersByPath = lambda **_: {
        "Parameters": [_one(Name=name) for name in ("/a", "/a/b", "flat")]
    }
    assert {"/a": "x", "/a/b": "x", "flat": "x"} == get_parameters_by_path("/")

    way.GetParametersByPath = lambda **_: {"Parameters": [_one(Name="")]}
    with pytest.raises(SourceError, match="could not be read"):
        get_parameters_by_path("/", force_fetch=True)


def test_arns_are_matched_to_what_the_batch_brought(way, source):
    """AWS answers to an ARN under the name; the ARN beside it tells."""
    shared = "arn:aws:ssm:eu-central-1:999999999999:parameter/p/01"
    way.foreign = {shared: "abroad"}
    wanted = named(source, way.arn("/p/01"), way.arn("/p/02"), shared)

    found = fetch_all(source, wanted)
    assert ["v1", "v2", "abroad"] == [found[key].value for key in wanted]
    assert ["GetParameters"] == way.operations


@pytest.mark.parametrize("tokens", [["1"], ["1", "2"], ["1", "2", "3"]])
def test_token_that_comes_again_is_an_error(way, monkeypatch, tokens):
    """A server that goes round in circles is not followed."""
    pages = itertools.cycle(tokens)
    monkeypatch.setattr(
        way,
        "GetParametersByPath",
        lambda **_: {"Parameters": [_one()], "NextToken": next(pages)},
    )
    with pytest.raises(SourceError, match="same NextToken came twice") as raised:
        get_parameters_by_path("/p")

    assert raised.value.transient
    assert len(tokens) + 1 == len(way.calls)


def test_number_of_pages_is_bounded(way, monkeypatch):
    """A server that always has a new token is not followed for ever, either."""
    monkeypatch.setattr(parameter_store, "MAX_PAGES", 9)
    numbers = itertools.count()
    monkeypatch.setattr(
        way,
        "GetParametersByPath",
        lambda **_: {"Parameters": [], "NextToken": str(next(numbers))},
    )
    with pytest.raises(SourceError, match="more than 9 pages"):
        get_parameters_by_path("/p")

    assert 10 == len(way.calls)


def test_what_does_not_exist_is_not_found(way, source):
    """InvalidParameters says so for names, versions and labels alike."""
    wanted = named(source, "/p/01", "/p/99", "/p/02:9", "/p/03:nope")
    found = fetch(source, wanted)

    assert 1 == len(way.calls)
    assert "v1" == found[wanted[0]].value
    assert "eu-central-1" in str(found[wanted[1]])
    assert [NotFoundError] * 3 == [type(found[key]) for key in wanted[1:]]
    assert ["/p/99", "/p/02:9", "/p/03:nope"] == [found[key].key for key in wanted[1:]]


def test_decrypted_and_not_are_two_calls(way, source):
    """WithDecryption holds for a whole call."""
    way.secure.add("/p/01")
    plain = named(source, "/p/01", "/p/02")
    cipher = named(source, "/p/01", "/p/02", decrypt=False)
    found = fetch(source, plain + cipher)

    assert 2 == len(way.calls)
    assert ["v1", "v2", "cipher:v1", "v2"] == [
        found[key].value for key in plain + cipher
    ]


def test_role_without_the_batch_action_falls_back_once(way, source):
    """A role written for AWS's layer has ssm:GetParameter only."""
    way.denied_operations.add("GetParameters")
    wanted = named(source, "/p/01", "/p/02", "/p/03")

    found = fetch(source, wanted)
    assert ["v1", "v2", "v3"] == [found[key].value for key in wanted]
    assert ["GetParameters", *["GetParameter"] * 3] == way.operations

    way.calls.clear()
    fetch(source, wanted)
    assert ["GetParameter"] * 3 == way.operations


def test_denied_name_is_kept_out_of_batches(way, source):
    """One denied name spoils a call once, not for ever."""
    way.denied_names.add("/p/02")
    wanted = named(source, "/p/01", "/p/02", "/p/03")
    found = fetch(source, wanted)
    assert ["v1", "v3"] == [found[wanted[0]].value, found[wanted[2]].value]
    assert isinstance(found[wanted[1]], AccessDeniedError)
    assert "/p/02" == found[wanted[1]].key

    way.calls.clear()
    fetch(source, wanted)
    assert ["GetParameter", "GetParameters"] == sorted(way.operations)


def test_names_that_are_all_denied_go_together_again(way, source):
    """Nothing tells the name that spoils a batch from a role without permissions."""
    way.denied_names = {"/p/01", "/p/02"}
    wanted = named(source, "/p/01", "/p/02")
    found = fetch(source, wanted)
    assert [AccessDeniedError] * 2 == [type(found[key]) for key in wanted]

    way.denied_names.clear()
    way.calls.clear()
    assert ["v1", "v2"] == [fetch(source, wanted)[key].value for key in wanted]
    assert {"GetParameters"} == {*way.operations}


def test_names_that_are_kept_out_of_batches_are_bounded(way, source, monkeypatch):
    """A program that asks for ever new names that it may not read keeps no list."""
    monkeypatch.setattr(parameter_store, "MAX_ALONE", 2)
    way.denied_names = {f"/p/{number:02}" for number in range(1, 5)}
    for number in range(1, 5):
        fetch(source, named(source, "/p/20", f"/p/{number:02}"))
    way.calls.clear()
    fetch(source, named(source, "/p/20", "/p/21", "/p/01", "/p/02"))
    assert ["GetParameter", "GetParameter", "GetParameters"] == sorted(way.operations)

    way.calls.clear()
    fetch(source, named(source, "/p/20", "/p/21", "/p/03"))
    assert ["GetParameters", *["GetParameter"] * 3] == way.operations


def test_throttled_batch_is_not_taken_apart(way, source):
    """Ten calls instead of one would be the wrong answer to throttling."""
    way.failures.append(way.error("ThrottlingException"))
    with pytest.raises(ThrottledError):
        fetch(source, named(source, "/p/01", "/p/02"))

    assert 1 == len(way.calls)


def test_path_is_read_page_by_page(way, source):
    """All pages, also empty ones, and each parameter for itself."""
    way.page = 7
    (key,) = [keys.path(source.scope, "/p")]
    found = fetch(source, [key])

    assert 5 == len(way.calls)
    assert {f"/p/{number:02}": f"v{number}" for number in range(30)} == found[key].value
    assert "v7" == found[keys.parameter(source.scope, "/p/07")].value


def test_empty_page_is_not_the_last(way, source, monkeypatch):
    """AWS may send nothing but a token."""
    pages = iter([
        {"Parameters": [], "NextToken": "1"},
        {"Parameters": [{"Name": "/p/x", "Value": "1", "Version": 1, "ARN": "arn:x"}]},
    ])  # fmt: skip
    monkeypatch.setattr(way, "GetParametersByPath", lambda **_: next(pages))
    key = keys.path(source.scope, "/p")

    assert {"/p/x": "1"} == fetch(source, [key])[key].value


def test_failed_page_fails_the_path(way, source):
    """Half of the parameters would look like all of them."""
    way.page = 7
    key = keys.path(source.scope, "/p")
    call = way.call
    answers = iter([None, None])

    def third_fails(operation, parameters, **options):
        if next(answers, way) is way:
            raise way.error("ThrottlingException")
        return call(operation, parameters, **options)

    way.call = third_fails

    assert isinstance(fetch(source, [key])[key], ThrottledError)


def test_recursion_is_asked_for(way, source):
    """One level, or all of them."""
    way.parameters["/p/deep/x"] = ["1"]
    one = keys.path(source.scope, "/p")
    every = keys.path(source.scope, "/p", recursive=True)
    found = fetch(source, [one, every])

    assert 30 == len(found[one].value)
    assert 31 == len(found[every].value)


def test_repr_shows_no_credentials(source):
    """The scope holds an access key id, which has no place in a log."""
    assert "AKID" not in repr(source)
