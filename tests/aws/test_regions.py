"""Where services are, held against botocore's rules."""

from __future__ import annotations

import re
import traceback

import hypothesis
import pytest
from botocore.endpoint_provider import EndpointProvider
from botocore.session import Session
from hypothesis import strategies as st

from lambda_ext import config, exceptions
from lambda_ext.aws import regions, transport

SERVICES = ("secretsmanager", "ssm", "appconfigdata")


@pytest.mark.parametrize("service", SERVICES)
def test_endpoint_of_every_region_is_botocores(service):
    """All regions of all partitions that botocore knows have its endpoint."""
    loader = Session().get_component("data_loader")
    partitions = loader.load_data("partitions")
    rules = loader.load_service_model(service, "endpoint-rule-set-1")
    provider = EndpointProvider(rules, partitions)
    names = [
        name
        for partition in partitions["partitions"]
        for name in partition["regions"]
        if not name.endswith("-global")
    ]

    for name in names:
        known = provider.resolve_endpoint(
            Region=name, UseFIPS=False, UseDualStack=False
        )
        assert known.url == regions.endpoint(service, name).url
    assert len(names) > 30


@pytest.mark.parametrize("service", SERVICES)
def test_variables_for_endpoints_are_botocores(service, monkeypatch):
    """The endpoint of a service's own variable is the one that boto3 takes."""
    import boto3

    variable = "AWS_ENDPOINT_URL_" + regions.VARIABLES[service]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv(variable, "http://127.0.0.1:2/base/")
    client = boto3.session.Session().client(service)

    assert client.meta.endpoint_url == regions.endpoint(service, "eu-central-1").url


def test_service_variable_comes_before_the_general_one(monkeypatch):
    """The nearest variable wins, and all can be switched off."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://one")
    assert "https://one" == regions.endpoint("ssm", "eu-central-1").url
    monkeypatch.setenv("AWS_ENDPOINT_URL_SSM", "https://two:444")
    assert "https://two:444" == regions.endpoint("ssm", "eu-central-1").url
    monkeypatch.setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "True")
    assert "https://ssm.eu-central-1.amazonaws.com" == (
        regions.endpoint("ssm", "eu-central-1").url
    )


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "authority", "local"),
    [
        ("http://localhost:4566", "localhost", 4566, "", "localhost:4566", True),
        ("https://VPCE.example/", "vpce.example", 443, "", "vpce.example", False),
        ("http://127.0.0.1", "127.0.0.1", 80, "", "127.0.0.1", True),
        ("http://[::1]:1/a/b/", "::1", 1, "/a/b/", "[::1]:1", True),
        ("https://a:443", "a", 443, "", "a", False),
        ("http://127.evil.example", "127.evil.example", 80, "", "127.evil.example",
         False),
        ("http://127.0.0.1.5", "127.0.0.1.5", 80, "", "127.0.0.1.5", False),
        ("http://localhost.evil", "localhost.evil", 80, "", "localhost.evil", False),
        ("http://0.0.0.0", "0.0.0.0", 80, "", "0.0.0.0", False),
        ("http://127.0.0.256", "127.0.0.256", 80, "", "127.0.0.256", False),
        ("http://127.1", "127.1", 80, "", "127.1", False),
        ("http://2130706433", "2130706433", 80, "", "2130706433", False),
        ("http://[::]", "::", 80, "", "[::]", False),
        ("http://[::ffff:10.0.0.1]", "::ffff:10.0.0.1", 80, "", "[::ffff:10.0.0.1]",
         False),
        ("http://LOCALHOST", "localhost", 80, "", "localhost", True),
    ],
)  # fmt: skip
def test_url_is_taken_apart(url, host, port, path, authority, local):
    """Host, port and path come out; only this machine is local."""
    found = regions.parse(url)

    assert (host, port, path) == (found.host, found.port, found.path)
    assert (authority, local) == (found.authority, found.local)


@pytest.mark.parametrize(
    "url",
    ["", "nonsense", "ftp://a", "http://", "http://user:secret@host", "http://a:0",
     "http://a:99999", "http://a b", "http://a\r\nX: y", "https://a/\u00e9",
     "http://a/b c", "http://a:x", "http://a/?b", "http://a/#b", "https://\u212a",
     "http\u017f://a", "https://\u0131.example", "https://a\n", "https://a%00b",
     "https://a@b", "https://[::1", "https://[fe80::1%25eth0]", "//a", "https:/a",
     "https://a:\u0664", "https://\u4f8b.example"],
)  # fmt: skip
def test_url_that_is_none_is_refused(url):
    """Anything but scheme, host, port and path is an error, and no password told."""
    with pytest.raises(exceptions.ConfigurationError) as caught:
        regions.parse(url)
    assert "secret" not in str(caught.value)


@hypothesis.given(
    url=st.one_of(
        st.text("htps:/[]a0.-_?#@ A5f\n\u212a"),
        st.builds(
            "{}://{}{}{}".format,
            st.sampled_from(["http", "https", "HTTPS", "ftp", ""]),
            st.text("aAz09.-_[]:f@\u0660", max_size=8),
            st.sampled_from(
                ["", ":", ":0", ":1", ":65535", ":65536", ":000443", ":1a"]
            ),
            st.text("/a?#~ %!Z\x7f", max_size=5),
        ),
    )
)
def test_urls_are_those_of_a_pattern(url):
    """Each URL is taken or refused, and taken apart, as this pattern says."""
    name, port, path = (
        r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)",
        r"([0-9]{1,5})",
        r'/[!"$->@-~]*',
    )
    pattern = rf"(https?)://{name}(?::{port})?({path})?"
    match = re.fullmatch(pattern, url, re.IGNORECASE | re.ASCII)
    if match is None or not 0 < int(match[3] or 1) < 65536:
        with pytest.raises(exceptions.ConfigurationError):
            regions.parse(url)
        return
    found = regions.parse(url)

    assert (found.tls, found.host) == (
        match[1].lower() == "https",
        match[2].strip("[]").lower(),
    )
    usual = 443 if found.tls else 80
    assert (int(match[3] or usual), match[4] or "") == (
        found.port,
        found.path or (match[4] or "")[:1],
    )


@pytest.mark.parametrize(
    "name", ["a.evil.example/", "eu central", "EU", "-a", "a" * 64]
)
def test_region_that_is_none_is_refused(name, monkeypatch):
    """A region becomes part of a host name, so it must look like one."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", name)

    with pytest.raises(exceptions.ConfigurationError, match="name of a region"):
        regions.region("ssm")


@pytest.mark.parametrize("variable", ["AWS_DEFAULT_REGION", "AWS_REGION"])
@pytest.mark.parametrize("way", ["light", "boto3"])
def test_error_about_the_region_names_its_variable(variable, way, monkeypatch):
    """What is to be corrected is the variable that was set."""
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv(variable, "Frankfurt am Main")
    config.configure(transport=way)

    with pytest.raises(exceptions.ConfigurationError) as caught:
        transport.transport("ssm").call("GetParameter", {"Name": "a"})
    assert f"{variable}='Frankfurt am Main'" in str(caught.value)


@pytest.mark.parametrize("way", ["light", "boto3"])
@pytest.mark.parametrize(
    "url",
    ["https://user:PASSWORD@h x/", "https://user:PASS@WORD@h x/",
     "https://user:PASS/WORD@h x", "https://user:PASSWORD?@h x",
     "https://user:PASS WORD@h x"],
)  # fmt: skip
def test_error_about_an_endpoint_names_its_variable_and_no_password(
    url, way, monkeypatch
):
    """A URL that is none is told without what precedes its host."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_SSM", url)
    config.configure(transport=way)

    with pytest.raises(exceptions.LambdaExtError) as caught:
        transport.transport("ssm").call("GetParameter", {"Name": "a"})
    told = "".join(traceback.format_exception(caught.value))
    assert not [part for part in ("PASS", "WORD", "user") if part in told]
    assert way == "boto3" or "AWS_ENDPOINT_URL_SSM" in str(caught.value)


def test_region_comes_from_either_variable(monkeypatch):
    """boto3's variable comes first, Lambda's is enough, none is an error."""
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert "eu-central-1" == regions.region("ssm")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert "eu-west-1" == regions.region("ssm")
    monkeypatch.delenv("AWS_REGION")
    with pytest.raises(exceptions.ConfigurationError, match=r"ssm: no .*AWS_REGION"):
        regions.region("ssm")
