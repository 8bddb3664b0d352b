"""
Where the keys to sign with come from: variables, or the container's endpoint.

The endpoint is that of `container_credentials`, which is loaded where there is one.
"""

from __future__ import annotations

import os

from .signing import Keys, MissingError, UnavailableError, variable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .container_credentials import Container

__all__ = ("Environment", "Keys", "MissingError", "UnavailableError", "provider")


class Environment:
    """The keys in the variables, read at each signing."""

    __slots__ = ()

    @property
    def identity(self) -> object:
        """Return what stands for the account and role: the access key."""
        return self.keys(0.0).access

    def keys(self, ends_at: float) -> Keys:
        """Return the keys; MissingError if there are none."""
        access = variable("AWS_ACCESS_KEY_ID")
        secret = variable("AWS_SECRET_ACCESS_KEY")
        if not (access and secret):
            raise MissingError
        # In the order of boto3.
        token = variable("AWS_SECURITY_TOKEN") or variable("AWS_SESSION_TOKEN")
        return Keys(access, secret, token)

    def renewed(self, refused: Keys, ends_at: float) -> bool:
        """Say whether there are other keys than those *refused*."""
        return not self.keys(ends_at).same(refused)

    def drop(self) -> None:
        """Do nothing: nothing is kept."""


def provider() -> Environment | Container | None:
    """Return where the keys come from; None if boto3 has to find them."""
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return Environment()
    for earlier in (  # what boto3 asks before: another role, perhaps
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    ):
        if os.environ.get(earlier):
            return None
    url = os.environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI", "")
    if not url:
        return None
    # SnapStart's: where the keys are in variables, none of it is needed.
    from . import container_credentials as containers

    return containers.container(url) if containers.is_documented(url) else None
