"""Which way a service takes, and why."""

from __future__ import annotations

import sys

import boto3
import botocore.utils
import pytest
from helpers import in_child, python, run_threads

from lambda_ext import config, exceptions
from lambda_ext.aws import transport


@pytest.fixture(autouse=True)
def _without_moto(monkeypatch):
    """As in production: what other tests have loaded is not there."""
    monkeypatch.delitem(sys.modules, "moto", raising=False)


def chosen():
    """Return the name of the way to Secrets Manager, and the reason."""
    way = transport.transport("secretsmanager")
    name, reason = transport.status()["secretsmanager"]
    assert name == way.name
    return name, reason


def test_light_is_the_way_where_it_can_be():
    """Keys and a region in the environment, as on Lambda, are enough."""
    assert ("light", "transport='auto'") == chosen()


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"AWS_PROFILE": "dev"}, "AWS_PROFILE is set"),
        ({"AWS_DEFAULT_PROFILE": "dev"}, "AWS_DEFAULT_PROFILE is set"),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "HTTPS_PROXY is set"),
        ({"https_proxy": "http://proxy:3128"}, "https_proxy is set"),
        ({"AWS_USE_FIPS_ENDPOINT": "true"}, "AWS_USE_FIPS_ENDPOINT is true"),
        ({"AWS_USE_DUALSTACK_ENDPOINT": "TRUE"}, "AWS_USE_DUALSTACK_ENDPOINT is true"),
        ({"AWS_DEFAULT_REGION": "fips-us-east-1"},
         "the region 'fips-us-east-1' means FIPS"),
        ({"AWS_DEFAULT_REGION": ""}, "the environment gives no region"),
        ({"AWS_ACCESS_KEY_ID": ""}, "the credentials are not in the environment"),
        ({"AWS_ACCESS_KEY_ID": "",
          "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2/credentials",
          "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1/"},
         "the credentials are not in the environment"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_WEB_IDENTITY_TOKEN_FILE": "/token"},
         "the credentials are not in the environment"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_WEB_IDENTITY_TOKEN_FILE": "/token",
          "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1/"},
         "the credentials are not in the environment"),
        ({"AWS_ACCESS_KEY_ID": "",
          "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://evil.example/"},
         "the credentials are not in the environment"),
    ],
)  # fmt: skip
def test_environment_that_asks_for_more_goes_through_boto3(
    variables, reason, monkeypatch
):
    """What the light client leaves out is boto3's, with the reason kept."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert ("boto3", reason) == chosen()
    transport.reset()
    config.configure(transport="light")
    with pytest.raises(exceptions.ConfigurationError) as caught:
        transport.transport("secretsmanager")
    assert reason in str(caught.value)
    assert "'auto'" in str(caught.value)


NEAR = "http://127.0.0.1:4566"


@pytest.mark.parametrize("endpoint", ["", NEAR, "https://vpce-1.example:8443/a"])
@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"https_proxy": "a:1"},
        {"HTTPS_PROXY": "a:1"},
        {"Https_Proxy": "a:1"},
        {"HTTPS_PROXY": "a:1", "https_proxy": "b:1"},
        {"HTTPS_PROXY": "a:1", "https_proxy": ""},
        {"HTTPS_proxy": "", "HTTPS_PROXY": "a:1"},
        {"HTTPS_PROXY": ""},
        {"http_proxy": "a:1"},
        {"HTTP_PROXY": "a:1"},
        {"Http_Proxy": "a:1"},
        {"HTTP_PROXY": "a:1", "REQUEST_METHOD": "GET"},
        {"http_proxy": "a:1", "REQUEST_METHOD": "GET"},
        {"ALL_PROXY": "a:1", "all_proxy": "a:1"},
        {"NO_PROXY": "*"},
        {"HTTPS_PROXY": "a:1", "HTTP_PROXY": "a:1", "NO_PROXY": "*"},
        {"HTTPS_PROXY": "a:1", "HTTP_PROXY": "a:1", "No_Proxy": "amazonaws.com"},
        {"HTTPS_PROXY": "a:1", "HTTP_PROXY": "a:1", "no_proxy": ".amazonaws.com, b"},
        {"HTTPS_PROXY": "a:1", "HTTP_PROXY": "a:1", "no_proxy": "127.0.0.1:4566"},
        {"HTTPS_PROXY": "a:1", "HTTP_PROXY": "a:1", "no_proxy": "127.0.0.1"},
        {"HTTPS_PROXY": "a:1", "HTTP_PROXY": "a:1", "no_proxy": "vpce-1.example"},
        {"HTTPS_PROXY": "a:1", "NO_PROXY": "*", "no_proxy": "elsewhere.example"},
        {"HTTPS_PROXY": "a:1", "NO_PROXY": "*", "no_proxy": ""},
        {"SOME_PROXY": "a:1", "HTTPS_PROXY_USER": "a"},
    ],
)
def test_proxies_are_those_of_boto3(variables, endpoint, monkeypatch):
    """The light client goes where boto3 would go directly, and nowhere else."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    url = boto3.client("secretsmanager").meta.endpoint_url
    proxies = botocore.utils.get_environ_proxies(url)
    proxy = proxies.get(url.partition(":")[0])
    config.configure(transport="auto")
    name, reason = chosen()

    assert ("boto3" if proxy else "light") == name
    if proxy:
        assert proxy == variables[reason.removesuffix(" is set")]


def test_proxy_without_a_region_is_refused_as_any(monkeypatch):
    """By the light client and by boto3, which are as little able to go on."""
    monkeypatch.setenv("HTTPS_PROXY", "a:1")
    monkeypatch.delenv("AWS_DEFAULT_REGION")

    assert ("boto3", "the environment gives no region") == chosen()


@pytest.mark.parametrize("way", ["auto", "light"])
@pytest.mark.parametrize("through", ["environment", "profile", "file", "session"])
def test_another_machine_without_tls_is_refused(through, way, monkeypatch, tmp_path):
    """However the endpoint is named, nothing is sent in the clear unasked."""
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)  # has read its files
    url = "http://127.1:4566"
    config.configure(transport=way)
    if through == "file":
        path = tmp_path / "config"
        path.write_text(f"[default]\nendpoint_url = {url}\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
    else:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    if through == "profile":
        monkeypatch.setenv("AWS_USE_DUALSTACK_ENDPOINT", "true")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    session = None
    if through == "session":
        session = boto3.session.Session()

    with pytest.raises(exceptions.ConfigurationError) as caught:
        transport.transport("ssm", session=session).call("GetParameter", {"Name": "a"})
    assert "boto3" in str(caught.value)
    if (through, way) not in [("profile", "light"), ("file", "light")]:
        assert "127.1:4566 is another machine without TLS" in str(caught.value)


@pytest.mark.parametrize("through", ["transport", "client", "session"])
def test_another_machine_without_tls_is_allowed_by_word(through, monkeypatch):
    """The option "boto3", or a client, is the user's choice of where it goes."""

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.1:4566")
    given = {}
    if through == "client":
        given["client"] = boto3.client("ssm")
    else:
        config.configure(transport="boto3")
    if through == "session":
        given["session"] = boto3.session.Session()

    found = transport.transport("ssm", **given).scope

    assert "http://127.1:4566" in found


def test_session_has_one_client_for_each_service():
    """Handles that share a session share its client, as long as one is alive."""

    first, second = boto3.session.Session(), boto3.session.Session()

    ways = [transport.transport("ssm", session=first) for _ in range(3)]
    other_service = transport.transport("secretsmanager", session=first)
    other_session = transport.transport("ssm", session=second)

    assert 1 == len({id(way) for way in ways})
    assert 3 == len({id(way) for way in (ways[0], other_service, other_session)})


@pytest.mark.parametrize("named", ["$FOLDER/config", "${FOLDER}/config"])
def test_variables_in_a_configuration_path_are_expanded(named, monkeypatch, tmp_path):
    """The path may hold variables, as for boto3."""
    (tmp_path / "config").write_text("[default]\n")
    monkeypatch.setenv("FOLDER", str(tmp_path))
    monkeypatch.setenv("AWS_CONFIG_FILE", named)

    assert ("boto3", f"there is a configuration file {named}") == chosen()


def test_configuration_file_is_found_without_home(monkeypatch, tmp_path):
    """Without HOME the password database knows where it is, as for boto3."""
    import pwd
    import types

    path = tmp_path / ".aws" / "config"
    path.parent.mkdir()
    path.write_text("[default]\n")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("AWS_CONFIG_FILE")
    user = types.SimpleNamespace(pw_dir=str(tmp_path))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: user)

    assert ("boto3", f"there is a configuration file {path}") == chosen()


@pytest.mark.parametrize(
    "variable", ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "HOME", "~"]
)
def test_configuration_file_goes_through_boto3(variable, monkeypatch, tmp_path):
    """A file that may change what boto3 does is read by boto3."""
    path = tmp_path / ".aws" / "config"
    path.parent.mkdir()
    path.write_text("[default]\nregion = eu-west-1\n")
    named = str(path)
    if variable == "HOME":
        monkeypatch.delenv("AWS_CONFIG_FILE")
        monkeypatch.setenv("HOME", str(tmp_path))
    elif variable == "~":
        named = "~/.aws/config"
        monkeypatch.setenv("AWS_CONFIG_FILE", named)
        monkeypatch.setenv("HOME", str(tmp_path))
    else:
        monkeypatch.setenv(variable, named)

    assert ("boto3", f"there is a configuration file {named}") == chosen()


@pytest.mark.parametrize(
    "variables",
    [
        {"AWS_USE_FIPS_ENDPOINT": "false"},
        {"AWS_ENDPOINT_URL": "https://vpce.example"},
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:4566"},
        {"AWS_ENDPOINT_URL": "http://stack:4566",
         "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
        {"AWS_ACCESS_KEY_ID": "",
         "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:9001/x"},
    ],
)  # fmt: skip
def test_environment_that_asks_for_no_more_stays_light(variables, monkeypatch):
    """What the light client can do does not load boto3."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    assert "light" == chosen()[0]


def test_option_decides(monkeypatch):
    """boto3 is taken when it is asked for, by argument or by variable."""
    config.configure(transport="boto3")
    assert ("boto3", "transport='boto3'") == chosen()
    transport.reset()
    config.reset()
    monkeypatch.setenv("LAMBDA_EXT_TRANSPORT", "light")
    assert ("light", "transport='light'") == chosen()


@pytest.mark.parametrize("value", ["botto3", "", 3, None])
def test_option_that_is_none_is_refused(value):
    """A misspelt way is told with the ways that there are."""
    with pytest.raises(exceptions.ConfigurationError, match="or 'boto3'"):
        config.configure(transport=value)


def test_client_or_session_means_boto3():
    """A client of boto3 that is passed is used, and shared with no other handle."""
    client = boto3.client("secretsmanager")

    ways = {
        transport.transport("secretsmanager", client=client),
        transport.transport("secretsmanager", session=boto3.session.Session()),
        transport.transport("secretsmanager"),
    }

    assert ["boto3", "boto3", "light"] == sorted(way.name for way in ways)
    assert {"secretsmanager": ("light", "transport='auto'")} == transport.status()


def test_moto_is_answered_through_boto3(monkeypatch):
    """In a program under test that mocks botocore, boto3 is the way."""
    monkeypatch.setitem(sys.modules, "moto", object())

    assert ("boto3", "moto is loaded") == chosen()
    transport.reset()
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001")
    assert "light" == chosen()[0]


def test_one_way_is_made_by_many_threads():
    """Threads that come together share one way."""
    ways = run_threads(8, lambda index: transport.transport("ssm"))

    assert 1 == len(set(map(id, ways)))


def test_change_of_the_option_changes_the_way():
    """configure() has an effect on what is asked for after it."""
    before = transport.transport("ssm")
    config.configure(transport="boto3")

    assert ("light", "boto3") == (before.name, transport.transport("ssm").name)


def test_held_lock_does_not_block_a_forked_child():
    """A fork in the middle of a choice leaves the child able to choose."""
    transport.transport("ssm")

    assert in_child(
        lambda: "light" == transport.transport("secretsmanager").name, transport._lock
    )


@pytest.mark.process
@pytest.mark.parametrize("way", ["light", "boto3"])
def test_unused_way_is_not_loaded(way):
    """Neither way brings the other's modules along."""
    done = python(
        "import os, sys\n"
        "os.environ.pop('HOME', None)\n"
        f"os.environ['LAMBDA_EXT_TRANSPORT'] = {way!r}\n"
        "from lambda_ext.aws import transport\n"
        "transport.transport('ssm')\n"
        "print(*sorted(m for m in sys.modules if m.startswith('lambda_ext.aws.')))"
    )

    loaded = done.stdout.replace("lambda_ext.aws.", "").split()
    assert ("light" in loaded, "boto" in loaded) == (way == "light", way == "boto3")
