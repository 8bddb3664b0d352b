"""
Where a service is: by partition and region, or where the user says.

Source: "Service-specific endpoints",
https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
"""

from __future__ import annotations

import contextlib
import os

from .. import config
from ..disclosure import printable
from ..exceptions import ConfigurationError
from . import errors

SUFFIXES = (  # the first prefix of the region that fits decides
    ("cn-", "amazonaws.com.cn"),
    ("us-iso-", "c2s.ic.gov"),
    ("us-isob-", "sc2s.sgov.gov"),
    ("us-isof-", "csp.hci.ic.gov"),
    ("eu-isoe-", "cloud.adc-e.uk"),
    ("eusc-", "amazonaws.eu"),
    ("", "amazonaws.com"),
)
VARIABLES = {  # AWS_ENDPOINT_URL_<what the service is called there>
    "secretsmanager": "SECRETS_MANAGER",
    "ssm": "SSM",
    "appconfigdata": "APPCONFIGDATA",
    "firehose": "FIREHOSE",
}
SHOWN = 100  # characters of what is wrong
ADDRESS = frozenset("0123456789abcdef:.")  # of IPv6, between brackets
NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")


class Endpoint:
    """A server to which requests, and signatures, may go."""

    __slots__ = ("host", "path", "port", "tls")

    def __init__(self, host: str, port: int, path: str, *, tls: bool) -> None:
        self.host = host
        self.port = port
        self.path = path  # as it was written; "" for "/"
        self.tls = tls

    def __repr__(self) -> str:
        return f"<endpoint {self.url}>"

    @property
    def authority(self) -> str:
        """Return the header Host: the port only where it is not the usual."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = 443 if self.tls else 80
        return host if self.port == usual else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """Return the endpoint as boto3 writes it."""
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.path}"

    @property
    def local(self) -> bool:
        """Say whether it is on this machine, so that TLS may be missing."""
        return is_loopback(self.host)


def region(service: str) -> str:
    """Return the region from the environment: boto3's variable, then Lambda's."""
    variable, name = named_region()
    if service == "appconfigdata" and config.get("appconfig_region"):
        return str(config.get("appconfig_region"))
    if not name:
        raise errors.no_region(service)
    if not _is_label(name):  # it becomes part of a host name
        shown = printable(name, SHOWN)
        msg = f"{variable}={shown!r} is not the name of a region"
        raise ConfigurationError(msg)
    return name


def named_region() -> tuple[str, str]:
    """Return the variable that gives the region, and the region; "" if none."""
    for variable in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        name = os.environ.get(variable)
        if name:
            return variable, name
    return "", ""


def endpoint(service: str, region_name: str) -> Endpoint:
    """Return where *service* is: as configured, else AWS's own."""
    variable, url = configured(service)
    if url:
        return parse(url, variable)
    suffix = next(end for start, end in SUFFIXES if region_name.startswith(start))
    return Endpoint(f"{service}.{region_name}.{suffix}", 443, "", tls=True)


def configured(service: str) -> tuple[str, str]:
    """Return the variable that gives the URL of *service*, and it; "" if none."""
    if os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() != "true":
        for variable in (
            f"AWS_ENDPOINT_URL_{VARIABLES[service]}",
            "AWS_ENDPOINT_URL",
        ):
            url = os.environ.get(variable)
            if url:
                return variable, url
    return "", ""


def parse(url: str, variable: str = "AWS_ENDPOINT_URL") -> Endpoint:
    """Return the endpoint at *url*; ConfigurationError if it is none."""
    # By hand: to compile a pattern for it would cost 0.25 ms of a cold start.
    scheme, mark, rest = url.lower().partition("://")
    place = rest.partition("/")[0]
    path = url[len(scheme) + len(mark) + len(place) :]
    if place.startswith("["):
        host, end, port = place[1:].partition("]")
        valid = bool(end) and ADDRESS.issuperset(host)
    else:
        host, end, port = place.partition(":")
        valid, port = NAME.issuperset(host), end + port
    # ASCII: a Kelvin sign in small letters is a "k".
    valid = valid and url.isascii() and url.isprintable() and not set(url) & {*" ?#"}
    if port:
        colon, digits = port[0], port[1:]
        valid = valid and colon == ":" and digits.isdigit() and len(digits) <= 5
        valid = valid and 0 < int(digits) < 65536
    if not valid or not host or scheme not in ("http", "https"):
        shown = printable(without_password(url), SHOWN)
        msg = f"{variable}={shown!r} is not the URL of an endpoint"
        raise ConfigurationError(msg)
    tls = scheme == "https"
    number = int(port[1:]) if port else 443 if tls else 80
    return Endpoint(host, number, "" if path == "/" else path, tls=tls)


def refuse_in_the_clear(endpoint: Endpoint | str) -> None:
    """Raise ConfigurationError if *endpoint* is another machine without TLS."""
    if isinstance(endpoint, str):  # boto3's, whose form need not be ours
        if endpoint.partition("://")[0].lower() != "http":
            return
        shown = printable(without_password(endpoint), SHOWN)
        local = False
        with contextlib.suppress(ConfigurationError):
            local = parse(endpoint).local
    else:
        if endpoint.tls:
            return
        shown, local = endpoint.url, endpoint.local
    if not local:
        msg = (
            f"the endpoint {shown} is another machine without TLS, where anyone on"
            " the way could read values and credentials: use https, or say"
            " transport='boto3' to send them in the clear"
        )
        raise ConfigurationError(msg)


def without_password(text: str) -> str:
    """Return *text* without what precedes the last "@" of a URL in it."""
    start, mark, rest = text.partition("://")
    if "@" not in rest:
        return text
    # A password may hold "@", "/", "?" and blanks.
    return f"{start}{mark}...@{rest.rpartition('@')[2]}"


def is_address(host: str) -> bool:
    """Say whether *host* is an address, so that no name is to be resolved."""
    if ":" in host:
        return True
    octets = host.split(".")
    return len(octets) == 4 and all(
        len(octet) < 4 and octet.isdigit() and int(octet) < 256 for octet in octets
    )


def is_loopback(host: str) -> bool:
    """
    Say whether *host* is this machine, by address or as "localhost".

    Whether the name does lead to this machine is seen when it is resolved.
    """
    if host in ("::1", "localhost", "localhost."):
        return True
    return host.startswith("127.") and is_address(host)


def _is_label(name: str) -> bool:
    allowed = name.isascii() and name.replace("-", "").isalnum() and name.islower()
    return allowed and len(name) < 64 and "-" not in (name[0], name[-1])
