"""The flag document in its forms, and what each flag of it says."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
from helpers import run_threads
from hypothesis import given, settings
from hypothesis import strategies as st

from lambda_ext.exceptions import InvalidDocumentError, RuleError, UnknownFlagError
from lambda_ext.flags.document import Document, Evaluation

# "Creating multi-variant feature flags", the example of ui_refresh.
UI_REFRESH = {
    "version": "1",
    "flags": {
        "ui_refresh": {
            "name": "UI Refresh",
            "attributes": {
                "dark_mode_support": {
                    "constraints": {"type": "boolean", "required": False}
                }
            },
        }
    },
    "values": {
        "ui_refresh": {
            "_variants": [
                {
                    "name": "QA",
                    "enabled": True,
                    "rule": '(ends_with $email "@example.com")',
                    "attributeValues": {"dark_mode_support": True},
                },
                {
                    "name": "Sample Population",
                    "enabled": True,
                    "rule": "(split pct::10 by::$userId)",
                    "attributeValues": {"dark_mode_support": False},
                },
                {"name": "Default Variant", "enabled": False},
            ]
        }
    },
}


def document(values, version="7"):
    """Return a document as it is retrieved."""
    return Document(json.dumps(values), version)


def facts(evaluation):
    """Return what an evaluation says, without the error."""
    return (
        evaluation.enabled,
        evaluation.variant,
        evaluation.attributes,
        evaluation.reason,
        evaluation.version,
    )


class TestDocumentedExample:
    """The example of the user guide, evaluated as it says."""

    document = Document(json.dumps(UI_REFRESH), "3")

    def test_first_rule_that_is_true_wins(self):
        """A tester gets the variant QA with its attributes."""
        found = self.document.evaluate("ui_refresh", {"email": "x@example.com"})

        assert (
            True,
            "QA",
            {"dark_mode_support": True},
            "TARGETING_MATCH",
            "3",
        ) == facts(found)

    def test_share_of_the_rest(self):
        """A tenth of the others gets the sample, by a split."""
        found = [
            self.document.evaluate("ui_refresh", {"email": "x", "userId": f"u{n}"})
            for n in range(2000)
        ]
        sample = [each for each in found if each.variant == "Sample Population"]

        assert 150 < len(sample) < 250
        assert {"SPLIT"} == {each.reason for each in sample}
        assert {(False, "Default Variant", "DEFAULT")} == {
            (each.enabled, each.variant, each.reason)
            for each in found
            if each not in sample
        }

    @pytest.mark.parametrize("context", [None, {}, {"email": "x"}, {"userId": None}])
    def test_default_without_a_match(self, context):
        """Without a context, or without what the rules ask for: the default."""
        found = self.document.evaluate("ui_refresh", context)

        assert (False, "Default Variant", {}, "DEFAULT", "3") == facts(found)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"enabled": True, "color": "red"}, (True, None, {"color": "red"}, "STATIC")),
        ({"enabled": False}, (False, None, {}, "DISABLED")),
        ({"enabled": False, "color": "hidden"}, (False, None, {}, "DISABLED")),
        ({}, (False, None, {}, "DISABLED")),
        ({"_variants": []}, (False, None, {}, "DISABLED")),
        (
            {"_variant": "fallback", "color": "green", "enabled": True},
            (True, "fallback", {"color": "green"}, "DEFAULT"),
        ),
        ({"_variant": "off", "enabled": False}, (False, "off", {}, "DEFAULT")),
        (
            {"enabled": True, "_createdAt": "x", "_updatedAt": "y", "n": 1},
            (True, None, {"n": 1}, "STATIC"),
        ),
        ({"enabled": "true"}, (True, None, {}, "STATIC")),
        ({"enabled": "FALSE"}, (False, None, {}, "DISABLED")),
        ({"_variants": [{"name": "a", "enabled": True, "rule": ""}]},
         (True, "a", {}, "STATIC")),
        ({"_variants": [{"name": "a", "enabled": False}]}, (False, "a", {}, "DISABLED")),
        (
            {"_variants": [{"name": "off", "enabled": False, "rule": "(and true true)",
                            "attributeValues": {"n": 1}},
                           {"name": "on", "enabled": True}]},
            (False, "off", {}, "TARGETING_MATCH"),
        ),
    ],
)  # fmt: skip
def test_value(value, expected):
    """Each form of a value means what the service makes of it."""
    for body in ({"f": value}, {"version": "1", "flags": {}, "values": {"f": value}}):
        assert (*expected, "7") == facts(document(body).evaluate("f", {}))


def test_flag_without_a_value_is_not_served():
    """A flag that is only defined does not exist, as in what the service serves."""
    found = document({"version": "1", "flags": {"f": {"name": "F"}}})

    assert [] == list(found)
    with pytest.raises(UnknownFlagError):
        found.flag("f")


def test_flag_may_be_called_version():
    """A retrieved document with a flag of that name is not mistaken."""
    assert document({"version": {"enabled": True}}).evaluate("version").enabled


MALFORMED = [
    (5, "value"),
    (None, "value"),
    ({"enabled": 1}, "enabled"),
    ({"enabled": None}, "enabled"),
    ({"enabled": "yes"}, "enabled"),
    ({"enabled": True, "_variant": 1}, "_variant"),
    ({"_variants": {}}, "_variants"),
    ({"_variants": [], "enabled": True}, "enabled"),
    ({"_variants": [1]}, "_variants[0]"),
    ({"_variants": [{"enabled": True}]}, "_variants[0].name"),
    ({"_variants": [{"name": "a", "enabled": 7}]}, "_variants[0].enabled"),
    ({"_variants": [{"name": "a", "rule": "(and true true)"}]}, "_variants[0].rule"),
    ({"_variants": [{"name": "a"}, {"name": "b"}]}, "_variants[0].rule"),
    ({"_variants": [{"name": "a", "rule": "(and true true)"}, {"name": "a"}]},
     "_variants[1].name"),
    ({"_variants": [{"name": "a", "rule": "(eq $a)"}, {"name": "b"}]},
     "_variants[0].rule"),
    ({"_variants": [{"name": "a", "rule": 5}, {"name": "b"}]}, "_variants[0].rule"),
    ({"_variants": [{"name": "a", "attributeValues": []}, {"name": "b"}]},
     "_variants[0].rule"),
    ({"_variants": [{"name": "a", "attributeValues": [1]}]},
     "_variants[0].attributeValues"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "location"), MALFORMED)
def test_malformed_flag_breaks_no_other(value, location):
    """It has an error with its place, and its neighbour a value."""
    found = document({"bad": value, "good": {"enabled": True}})
    bad = found.evaluate("bad", {})

    assert found.evaluate("good", {}).enabled
    assert (False, None, {}, "ERROR", "7") == facts(bad)
    assert isinstance(bad.error, InvalidDocumentError)
    assert ("bad", location) == (bad.error.flag, bad.error.location)
    assert location in str(bad.error)


def test_malformed_rule_says_where_in_it():
    """The error of a rule is the cause, with its position."""
    rule = {"_variants": [{"name": "a", "rule": "(eq $a)"}, {"name": "b"}]}
    error = document({"f": rule}).evaluate("f").error

    assert isinstance(error.__cause__, RuleError)
    assert "TooFewOperands at position 6" in str(error)


@pytest.mark.parametrize(
    "body",
    ["", "[]", "5", "null", '"text"', "{", b"\xff\xfe\xfa", '{"a": secret-text}',
     '{"version": "2"}', '{"version": "1", "values": []}', "[" * 100_000],
)  # fmt: skip
def test_broken_document_is_refused_without_a_quote(body):
    """What is no flag document is refused as a whole; the error holds none of it."""
    with pytest.raises(InvalidDocumentError) as caught:
        Document(body)

    assert "secret-text" not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_unknown_flag_names_the_nearest():
    """A misspelt flag is an error that shows the right spelling."""
    found = document({"new-checkout": {"enabled": True}})

    with pytest.raises(UnknownFlagError, match="did you mean 'new-checkout'") as caught:
        found.flag("new-chekout")
    assert ("new-chekout", "new-checkout") == (caught.value.flag, caught.value.nearest)
    with pytest.raises(UnknownFlagError) as caught:
        found.flag("xyz")
    assert "" == caught.value.nearest


def test_nearest_is_sought_once_for_a_few_names(monkeypatch):
    """A misspelt flag in each request does not cost a search in each."""
    import difflib

    sought = []
    find = difflib.get_close_matches
    monkeypatch.setattr(
        "difflib.get_close_matches",
        lambda *a, **k: sought.append(a[0]) or find(*a, **k),
    )
    found = document({"on": {"enabled": True}})
    names = ["onn"] * 5 + [f"x{number}" for number in range(500)] + ["y" * 1000, 5]
    for name in names:
        with pytest.raises(UnknownFlagError):
            found.flag(name)

    assert ("onn", 100) == (sought[0], len(sought))


def test_flags_are_parsed_when_asked_for():
    """Loading a document parses no rule; asking for a flag parses its own."""
    found = document({"bad": {"_variants": 5}, "good": {"enabled": True}})

    assert {} == found.parsed
    found.flag("good")
    assert ["good"] == list(found.parsed)
    assert {"good": True} == found.plain


def test_attributes_are_copies():
    """What a caller changes in an attribute, no other caller sees."""
    found = document({"f": {"enabled": True, "list": [1], "map": {"a": [2]}}})
    found.evaluate("f").attributes["list"].append(9)
    found.evaluate("f").attribute("map")["a"].append(9)
    found.evaluate("f").attributes.clear()

    assert {"list": [1], "map": {"a": [2]}} == found.evaluate("f").attributes
    assert "x" == found.evaluate("f").attribute("none", "x")


def test_threads_share_one_parse():
    """Many threads that ask for one flag at once get one and the same result."""
    found = document(UI_REFRESH)
    results = run_threads(20, lambda _: found.evaluate("ui_refresh"))

    assert 1 == len({id(each) for each in results})


def test_repr_holds_no_attribute():
    """Neither a document nor an evaluation shows a value."""
    found = document({"f": {"enabled": True, "key": "secret-text"}})

    assert "<Document version='7' with 1 flag(s)>" == repr(found)
    assert "secret-text" not in repr(found.evaluate("f"))
    assert "'f' enabled=True" in repr(found.evaluate("f"))


def test_another_reason():
    """An evaluation can be told again with another reason."""
    found = Evaluation("f", enabled=True, reason="STATIC", attributes={"a": 1})

    assert (True, None, {"a": 1}, "STALE", "") == facts(found.because("STALE"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5)
    | st.sampled_from(["(and true true)", "(eq $a 1)", "true"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["enabled", "_variants", "_variant", "name", "rule",
                         "attributeValues", "x", "version", "values"]),
        inner, max_size=4),
    max_leaves=15,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(max_size=3), JSON, max_size=4))
def test_any_json_evaluates_flag_by_flag(values):
    """Asking for a flag raises nothing, also for one that is malformed."""
    found = document(values)

    assert {*values} == {*found}
    for name in found:
        evaluation = found.evaluate(name, {"a": 1})
        assert type(evaluation.enabled) is bool
        assert (evaluation.reason == "ERROR") is (evaluation.error is not None)
        assert isinstance(evaluation.attributes, dict)


@pytest.mark.parametrize("encode", [str, str.encode])
def test_byte_order_mark_is_passed_over(encode):
    """A document that an editor of Windows has saved is read, as text and as bytes."""
    document = Document(encode("\ufeff" + json.dumps({"a": {"enabled": True}})))

    assert document.evaluate("a").enabled


@pytest.mark.parametrize("name", ["enabled", "reason", "variant", "context"])
def test_result_cannot_be_changed(name):
    """All evaluations share one result, so that no caller may change it; a copy is one."""
    document = Document(json.dumps({"a": {"enabled": True, "x": [1]}}))
    found = document.evaluate("a")
    for change in (
        lambda: setattr(found, name, False),
        lambda: delattr(found, name),
    ):
        with pytest.raises(AttributeError, match="cannot be changed"):
            change()
    copies = copy.copy(found), copy.deepcopy(found), pickle.loads(pickle.dumps(found))

    assert document.evaluate("a").enabled
    assert [(True, "STATIC", {"x": [1]})] * 3 == [
        (each.enabled, each.reason, each.attributes) for each in copies
    ]


def test_deep_attribute_is_copied():
    """What `json` can read can be handed out, however deep it is."""
    value = "[" * 700 + "1" + "]" * 700
    document = Document(f'{{"a": {{"enabled": true, "x": {value}}}}}')
    found = document.evaluate("a")
    found.attribute("x").append(2)

    assert json.loads(value) == found.attribute("x") == found.attributes["x"]
