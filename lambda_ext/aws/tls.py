"""
Which certificates are trusted: Amazon's five roots, then the machine's store.

AWS's endpoints chain to one of the five, and OpenSSL loads just that one, in
0.2 ms, since each lies in a file that is named after the hash of its subject
(``openssl x509 -hash``).  The whole store costs some 26 ms.  Where none of the
five verifies, a second handshake is made with the whole store, which is then
tried first for that host.  Nothing is ever accepted unverified.  The machine's
store is OpenSSL's: ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` say where it is.  A
bundle of the user's (``AWS_CA_BUNDLE``, or ``REQUESTS_CA_BUNDLE``, as for boto3)
replaces both.

Source: Amazon Trust Services repository,
https://www.amazontrust.com/repository/ (the roots in ``roots/``)

Threads
    ``_lock`` is held while a context is made; contexts are shared.
"""

from __future__ import annotations

import os
import stat

from ..disclosure import printable
from ..exceptions import ConfigurationError
from ..lifecycle import process
from .native import modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What is no bundle of the user's; no file has such a name.
AMAZON = "\0amazon"  # the five roots
SYSTEM = "\0system"  # the whole store of the machine
CLIENT = "\0client\0"  # between a store and what `with_client` adds to it
ROOTS = os.path.join(os.path.dirname(__file__), "roots")

_lock = process.Lock()
_contexts: dict[tuple[str, str], Any] = {}  # by kind of modules, and store
_by_system: set[str] = set()  # hosts that only SYSTEM verified, the last time


def stores(host: str) -> tuple[str, ...]:
    """Return what to verify *host* with, one after the other."""
    variable = variable_of_bundle()
    if variable:
        return (os.path.expanduser(os.environ[variable]),)  # as for boto3
    return (SYSTEM, AMAZON) if host in _by_system else (AMAZON, SYSTEM)


def variable_of_bundle() -> str:
    """Return the variable that names the user's bundle; "" if there is none."""
    for variable in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):
        if os.environ.get(variable):
            return variable
    return ""


def with_client(store: str, certificate: str, key: str) -> str:
    """
    Return *store*, with a certificate of this client for mutual TLS.

    *certificate* is the path of a file with the certificate, and its chain; *key*
    that of its key, without a password; "" where both are in one file.
    """
    return f"{store}{CLIENT}{certificate}\0{key}"


def verified(host: str, store: str) -> None:
    """Remember that *store* verified *host*."""
    if store == SYSTEM:
        _by_system.add(host)
    else:
        _by_system.discard(host)


def context(store: str) -> Any:
    """Return the context of *store*: one of ours, a file's path, or `with_client`."""
    which = (modules().kind, store)
    found = _contexts.get(which)
    if found is None:
        with _lock:
            found = _contexts.get(which)
            if found is None:
                # A signal handler may have asked meanwhile: the first one stays.
                found = _contexts.setdefault(which, _new_context(store))
    return found


@process.at_reset
def reset() -> None:
    """Forget contexts and hosts, as if this were just imported."""
    with _lock:
        _contexts.clear()
        _by_system.clear()


def _new_context(store: str) -> Any:
    store, _, client = store.partition(CLIENT)
    made = _trusting(store)
    if client:
        certificate, _, key = client.partition("\0")
        try:
            # With a password OpenSSL does not ask for one at the terminal.
            made.load_cert_chain(certificate, key or None, "")
        except (OSError, ValueError) as exc:
            _raise_if_not_of_file(exc)
            msg = (
                "the certificate of this client cannot be used:"
                f" {printable(certificate)!r} and {printable(key or certificate)!r} are"
                " no pair of a certificate and its key, both PEM, without a password"
            )
            raise ConfigurationError(msg) from exc
    return made


def _trusting(store: str) -> Any:
    made = modules().context()
    if store == SYSTEM:
        made.set_default_verify_paths()
        bundled = _bundled()
        if bundled is not None and not made.cert_store_stats()["x509_ca"]:
            made.load_verify_locations(bundled)
        return made
    path = ROOTS if store == AMAZON else store
    try:
        if _is_directory(path):
            made.load_verify_locations(None, path)
        else:
            made.load_verify_locations(path)
    except OSError as exc:
        _raise_if_not_of_file(exc)
        if store == AMAZON:  # a packaging that lost them: the second try decides
            return made
        msg = (
            f"{variable_of_bundle() or 'the bundle'} cannot be used:"
            f" {printable(path)!r} holds no certificates"
        )
        raise ConfigurationError(msg) from exc
    return made


def _is_directory(path: str) -> bool:
    """Say whether *path* is one; `os.path.isdir` hides an OSError of a signal handler."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as exc:
        if process.by_signal_handler(exc):
            raise
        return False
    return stat.S_ISDIR(mode)


def _raise_if_not_of_file(exc: Exception) -> None:
    """Raise *exc* where it tells nothing of the file: no descriptor is free, say."""
    import errno

    # Of an error of OpenSSL's the number is OpenSSL's.
    if type(exc) is OSError and exc.errno in (errno.EMFILE, errno.ENFILE):
        raise exc
    if process.by_signal_handler(exc):
        raise exc


def _bundled() -> str | None:
    """Return the path of the bundle that botocore ships, without loading it."""
    # Needed only where Python's own store is empty, as in some images.
    import importlib.util

    spec = importlib.util.find_spec("botocore")
    if spec is None or spec.origin is None:
        return None
    path = os.path.join(os.path.dirname(spec.origin), "cacert.pem")
    return path if os.path.exists(path) else None
