"""
Where a service is: by partition and region, or where the user says.

Source: "Service-specific endpoints",
https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
"""

from __future__ import annotations

import contextlib
import os
import re

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
# Compiled only where it is needed, which in Lambda it seldom is.
URL = r'(https?)://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::([0-9]{1,5}))?(/[!"$->@-~]*)?'


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
    # ASCII: without it, a Kelvin sign is a "k", and a long s an "s".
    match = re.fullmatch(URL, url, re.IGNORECASE | re.ASCII)
    if match is None or not 0 < int(match[3] or 1) < 65536:
        shown = printable(without_password(url), SHOWN)
        msg = f"{variable}={shown!r} is not the URL of an endpoint"
        raise ConfigurationError(msg)
    tls = match[1].lower() == "https"
    port = int(match[3]) if match[3] else 443 if tls else 80
    host = match[2].strip("[]").lower()
    path = match[4] or ""
    return Endpoint(host, port, "" if path == "/" else path, tls=tls)


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
