"""Whom we trust, with the private modules and with the public ones."""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import socket
import ssl
import sys
import threading
import types

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from helpers import eventually, in_child, python
from wire import Authority, Peer, Wire, authority, hashed, instead, reset, response

from lambda_ext import exceptions
from lambda_ext.aws import light, native, tls

SIGNATURE_FAILURE = 7  # X509_V_ERR_CERT_SIGNATURE_FAILURE
ELLIPTIC = ("Amazon Root CA 3", "Amazon Root CA 4")  # the others have keys of RSA
OIDS = {
    "countryName": x509.NameOID.COUNTRY_NAME,
    "stateOrProvinceName": x509.NameOID.STATE_OR_PROVINCE_NAME,
    "localityName": x509.NameOID.LOCALITY_NAME,
    "organizationName": x509.NameOID.ORGANIZATION_NAME,
    "commonName": x509.NameOID.COMMON_NAME,
}
TEXT = b"HTTP/1.1 200 OK\r\n\r\n" + b'{"SecretString": "x"}'  # ends with the connection


def answer(request):
    return {"ARN": "a", "SecretString": "x"}


@pytest.fixture(name="ours")
def _ours(monkeypatch, tmp_path, pauses, kind):
    """The machine's store and Amazon's roots are the tests' authority."""
    monkeypatch.setenv("SSL_CERT_FILE", authority().path)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    monkeypatch.setattr(tls, "ROOTS", authority().path)


def roots(file=""):
    """Return a context that trusts one of the roots, or all."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name in [file] if file else os.listdir(tls.ROOTS):
        context.load_verify_locations(os.path.join(tls.ROOTS, name))
    return context


def subject(file):
    """Return whose root *file* holds."""
    (root,) = roots(file).get_ca_certs()
    return x509.Name(
        [
            x509.NameAttribute(OIDS[attribute], value)
            for ((attribute, value),) in root["subject"]
        ]
    )


def impostor(name):
    """Return a server's context whose authority has the *name* of a root, not its key."""
    (common,) = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    if common.value in ELLIPTIC:
        key = ec.generate_private_key(ec.SECP256R1())
    else:
        key = rsa.generate_private_key(65537, 2048)
    return Authority(name, key).server("127.0.0.1")


def ask(wire, monkeypatch, **options):
    """Ask the server once, over TLS, by a way of its own."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
    way = light.Light("secretsmanager")
    way.attempts = 1
    try:
        return way.call("GetSecretValue", {"SecretId": "db"}, **options)["SecretString"]
    finally:
        way.close()


def refused(wire, monkeypatch):
    """Ask, and return why the certificate was refused; nothing was sent."""
    with pytest.raises(exceptions.SourceError, match="certificate") as caught:
        ask(wire, monkeypatch)
    assert [] == wire.requests
    assert caught.value.transient
    return str(caught.value)


class TestRefusal:
    """A certificate that does not verify is refused, with each store."""

    def test_trusted_certificate_is_accepted(self, ours, monkeypatch):
        """The server that the other tests refuse is fine when all is right."""
        with Wire(answer, tls=authority().server("127.0.0.1")) as wire:
            assert "x" == ask(wire, monkeypatch)
            assert 1 == wire.connections

    def test_untrusted_certificate_is_refused_on_both_tries(self, kind, monkeypatch):
        """Neither Amazon's roots nor the machine's store know this authority."""
        with Wire(answer, tls=authority().server("127.0.0.1")) as wire:
            assert "issuer" in refused(wire, monkeypatch)
            assert 2 == wire.connections

    def test_wrong_host_name_is_refused_on_both_tries(self, ours, monkeypatch):
        """A good certificate of another host's is no good."""
        with Wire(answer, tls=authority().server("other.example", "127.0.0.2")) as wire:
            assert "mismatch" in refused(wire, monkeypatch)
            assert 2 == wire.connections

    def test_expired_certificate_is_refused_on_both_tries(self, ours, monkeypatch):
        """A certificate of yesterday's is no good today."""
        with Wire(answer, tls=authority().server("127.0.0.1", days=(-9, -1))) as wire:
            assert "expired" in refused(wire, monkeypatch)
            assert 2 == wire.connections

    def test_certificate_of_tomorrow_is_refused(self, ours, monkeypatch):
        """A certificate that is not valid yet is no good either."""
        with Wire(answer, tls=authority().server("127.0.0.1", days=(1, 9))) as wire:
            assert "not yet valid" in refused(wire, monkeypatch)

    def test_bundle_replaces_both_stores(self, ours, monkeypatch):
        """With AWS_CA_BUNDLE no other certificate is trusted, as with boto3."""
        monkeypatch.setenv("AWS_CA_BUNDLE", Authority("Another").path)

        with Wire(answer, tls=authority().server("127.0.0.1")) as wire:
            refused(wire, monkeypatch)
            assert 1 == wire.connections


class TestStores:
    """Which certificates are loaded, and when."""

    def test_bundle_is_trusted(self, kind, monkeypatch):
        """AWS_CA_BUNDLE names whom to trust, and boto3's second variable too."""
        with Wire(answer, tls=authority().server("127.0.0.1")) as wire:
            monkeypatch.setenv("AWS_CA_BUNDLE", authority().path)
            assert "x" == ask(wire, monkeypatch)
            monkeypatch.delenv("AWS_CA_BUNDLE")
            monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority().path)
            assert "x" == ask(wire, monkeypatch)

    def test_bundle_may_be_a_directory(self, kind, monkeypatch):
        """A directory of hashed certificates does as well as a file."""
        monkeypatch.setenv("AWS_CA_BUNDLE", authority().directory)

        with Wire(answer, tls=authority().server("127.0.0.1")) as wire:
            assert "x" == ask(wire, monkeypatch)

    @pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
    def test_refusal_names_the_bundle(self, kind, monkeypatch, tmp_path, variable):
        """A directory without a certificate that fits is the first thing to look at."""
        monkeypatch.setenv(variable, str(tmp_path))

        with Wire(answer, tls=authority().server("127.0.0.1")) as wire:
            assert f"; {variable} says whom to trust" in refused(wire, monkeypatch)

    @pytest.mark.parametrize("text", [None, "nonsense"])
    def test_bundle_without_certificates_is_named(
        self, kind, monkeypatch, tmp_path, text
    ):
        """A bundle that cannot be used is an error, not a reason to trust less."""
        path = tmp_path / "bundle.pem"
        if text is not None:
            path.write_text(text)
        monkeypatch.setenv("AWS_CA_BUNDLE", str(path))

        with Wire(answer, tls=authority().server("127.0.0.1")) as wire:
            with pytest.raises(exceptions.ConfigurationError, match=r"bundle\.pem"):
                ask(wire, monkeypatch)

    def test_bundle_is_read_again_once_a_file_can_be_opened(self, kind, monkeypatch):
        """Too many open files is a failure that passes, and no fault of the bundle."""
        monkeypatch.setenv("AWS_CA_BUNDLE", authority().path)
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        wire = Wire(answer, tls=authority().server("127.0.0.1"))
        # It accepts later: a thread that accepts takes a descriptor before it waits.
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limit[1]))
        try:
            with pytest.raises(exceptions.SourceError, match="open files") as caught:
                ask(wire, monkeypatch)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
        assert caught.value.transient
        with wire:
            assert "x" == ask(wire, monkeypatch)

    def test_machines_store_is_the_second_try(self, ours, monkeypatch):
        """Where Amazon's roots do not verify, the whole store may, and is kept."""
        monkeypatch.setattr(tls, "ROOTS", Authority("Another").path)
        with Wire(answer, tls=authority().server("127.0.0.1")) as wire:
            assert "x" == ask(wire, monkeypatch)
            eventually(lambda: 1 == wire.refused_handshakes)  # it learns it later
            assert 2 == wire.connections
            assert "x" == ask(wire, monkeypatch)
            assert 3 == wire.connections

    def test_store_is_tried_after_a_refused_certificate_only(self, ours, monkeypatch):
        """A server that hangs up in the handshake is not asked a second time."""
        accepted = []
        with socket.create_server(("127.0.0.1", 0)) as server:

            def hang_up():
                with contextlib.suppress(OSError):
                    while True:
                        peer, _ = server.accept()
                        accepted.append(peer.recv(1))
                        peer.close()

            thread = threading.Thread(target=hang_up)
            thread.start()
            url = f"https://127.0.0.1:{server.getsockname()[1]}"
            with pytest.raises(exceptions.SourceError):
                ask(types.SimpleNamespace(url=url), monkeypatch)
            server.shutdown(socket.SHUT_RDWR)
            thread.join(30)

        assert 1 == len(accepted)

    def test_roots_are_tried_again_where_the_machines_store_was_needed(
        self, ours, monkeypatch, tmp_path
    ):
        """A host that once needed the machine's store may need the roots later."""
        first, second = Authority("First"), Authority("Second")
        both = tmp_path / "both.pem"
        both.write_bytes(second.pem)
        monkeypatch.setenv("SSL_CERT_FILE", first.path)
        monkeypatch.setattr(tls, "ROOTS", str(both))
        for certified, connections in (
            (first, 2), (first, 1), (second, 2), (second, 1), (first, 2)
        ):  # fmt: skip
            with Wire(answer, tls=certified.server("127.0.0.1")) as wire:
                assert "x" == ask(wire, monkeypatch)
                assert connections == wire.connections

    @pytest.mark.parametrize("name", ["system", "amazon"])
    def test_bundle_may_have_any_name(self, name, kind, monkeypatch, tmp_path):
        """A file that is called like one of our own stores is that file."""
        monkeypatch.chdir(tmp_path)
        (tmp_path / name).write_bytes(authority().pem)
        monkeypatch.setenv("AWS_CA_BUNDLE", name)
        with Wire(answer, tls=authority().server("127.0.0.1")) as wire:
            assert "x" == ask(wire, monkeypatch)

    def test_bundle_may_be_in_the_home_directory(self, kind, monkeypatch, tmp_path):
        """A tilde means what it means to boto3."""
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "ca.pem").write_bytes(authority().pem)
        monkeypatch.setenv("AWS_CA_BUNDLE", "~/ca.pem")
        with Wire(answer, tls=authority().server("127.0.0.1")) as wire:
            assert "x" == ask(wire, monkeypatch)

    def test_host_name_may_end_with_a_dot(self, ours, monkeypatch):
        """The dot is for the name server; certificates have none."""
        with Wire(answer, tls=authority().server("h.test")) as wire:
            there = native.modules().getaddrinfo

            def found(host, *more):
                assert b"h.test." == host
                return there(b"127.0.0.1", *more)

            monkeypatch.setattr(native.modules(), "getaddrinfo", found)
            monkeypatch.setattr(
                Wire, "url", property(lambda wire: f"https://h.test.:{wire.port}")
            )
            assert "x" == ask(wire, monkeypatch)
            assert [f"h.test.:{wire.port}"] == [
                request.headers["host"] for request in wire.requests
            ]

    def test_lost_roots_are_no_failure(self, ours, monkeypatch):
        """A packaging that leaves out the roots costs the second try only."""
        monkeypatch.setattr(tls, "ROOTS", "/nowhere/roots.pem")
        with Wire(answer, tls=authority().server("127.0.0.1")) as wire:
            assert "x" == ask(wire, monkeypatch)

    def test_empty_store_is_filled_with_botocores(self, kind, monkeypatch, tmp_path):
        """Where Python finds no certificates, those of botocore are taken."""
        monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))

        assert tls.context(tls.SYSTEM).cert_store_stats()["x509_ca"] > 50

    def test_roots_are_amazons_five(self):
        """The files hold the roots that Amazon Trust Services publishes."""
        found = roots().get_ca_certs(binary_form=True)

        assert {
            "8ecde6884f3d87b1125ba31ac3fcb13d7016de7f57cc904fe1cb97c6ae98196e",
            "1ba5b2aa8c65401a82960118f80bec4f62304d83cec4713a19c39c011ea46db4",
            "18ce6cfe7bf14e60b2e347b8dfe868cb31d02ebb3ada271569f50343b46db3a4",
            "e35d28419ed02025cfa69038cd623962458da5c695fbdea3c22b0bfb25897092",
            "568d6905a2c88708a4b3025190edcfedb1974a606a13c6e5290fcb2ae63edab5",
        } == {hashlib.sha256(root).hexdigest() for root in found}

    @pytest.mark.parametrize("file", sorted(os.listdir(tls.ROOTS)))
    def test_root_is_found_by_its_subject(self, kind, file):
        """Whose issuer is called like a root is checked by it; no other is loaded."""
        name = subject(file)
        assert hashed(name) == file
        with Wire(answer, tls=impostor(name)) as wire:
            context = tls.context(tls.AMAZON)
            host, port = wire.url.removeprefix("https://").split(":")
            with socket.create_connection((host, int(port))) as plain:
                _, secure = native.modules().secure(context, plain, host)
                with pytest.raises(ssl.SSLCertVerificationError) as caught:
                    secure.do_handshake()
                getattr(secure, "close", plain.close)()  # the public one owns it

        # 20, "unable to get local issuer", would mean that it was not found.
        assert SIGNATURE_FAILURE == caught.value.verify_code
        assert 1 == context.cert_store_stats()["x509_ca"]

    def test_contexts_are_shared(self, kind):
        """One context serves all services."""
        assert tls.context(tls.AMAZON) is tls.context(tls.AMAZON)
        assert tls.context(tls.AMAZON) is not tls.context(tls.SYSTEM)

    def test_held_lock_does_not_block_a_forked_child(self, kind):
        """A fork while a context is made leaves the child able to make one."""
        tls.reset()

        assert in_child(
            lambda: tls.context(tls.AMAZON).check_hostname,
            tls._lock,
        )


class TestWire:
    """What goes wrong below HTTP."""

    def test_stalled_handshake_costs_the_deadline(self, ours, monkeypatch):
        """A server that accepts and says nothing holds no caller up."""
        context = authority().server("127.0.0.1")
        with Wire(answer, tls=context, handshake=False) as wire:
            with pytest.raises(exceptions.SourceTimeoutError):
                ask(wire, monkeypatch, timeout_s=0.2)

    def test_handshake_that_drips_costs_the_deadline(self, ours, monkeypatch):
        """A byte of the handshake now and then does not extend the caller's time."""

        def drip(peer):
            with contextlib.suppress(OSError):  # until the client has gone away
                peer.send(b"\x16\x03\x03\x40\x00")  # a record of 16 KB begins
                while not peer.wire.stopped.wait(0.02):
                    peer.send(b"\x02")

        monkeypatch.setattr(Peer, "hold", drip)
        context = authority().server("127.0.0.1")
        with Wire(answer, tls=context, handshake=False) as wire:
            with pytest.raises(exceptions.SourceTimeoutError):
                ask(wire, monkeypatch, timeout_s=0.3)

    def test_server_without_tls_is_an_error(self, ours, monkeypatch):
        """A server that does not speak TLS gets no request."""
        with Wire(answer) as wire:
            monkeypatch.setattr(Wire, "url", f"https://127.0.0.1:{wire.port}")
            wire.answer = None
            with pytest.raises(exceptions.SourceError) as caught:
                ask(wire, monkeypatch, timeout_s=1.0)
            assert caught.value.transient
            assert [] == wire.requests

    def test_reset_inside_tls_is_an_error_that_passes(self, ours, monkeypatch):
        """A connection that breaks is a network error for every error of OpenSSL's."""
        with Wire(answer, tls=authority().server("127.0.0.1")) as wire:
            wire.faults.append(reset)
            with pytest.raises(exceptions.SourceError) as caught:
                ask(wire, monkeypatch)
            assert caught.value.transient

    def test_body_that_ends_with_the_connection_is_read(self, ours, monkeypatch):
        """An end that TLS itself announces is an end."""
        with Wire(answer, tls=authority().server("127.0.0.1")) as wire:
            wire.faults.append(instead(TEXT))
            assert "x" == ask(wire, monkeypatch)

    def test_body_that_was_cut_is_refused(self, ours, monkeypatch):
        """An end that TLS did not announce may be an attacker's."""
        with Wire(answer, tls=authority().server("127.0.0.1")) as wire:
            wire.faults.append(instead(TEXT, reset))
            with pytest.raises(exceptions.SourceError) as caught:
                ask(wire, monkeypatch)
            assert caught.value.transient

    def test_connection_is_kept_over_tls(self, ours, monkeypatch):
        """The tickets that TLS 1.3 sends after the handshake are no noise."""
        with Wire(answer, tls=authority().server("127.0.0.1")) as wire:
            monkeypatch.setenv("AWS_ENDPOINT_URL", wire.url)
            way = light.Light("secretsmanager")
            for _ in range(4):
                way.call("GetSecretValue", {"SecretId": "db"})
            way.close()
            assert 1 == wire.connections

    def test_large_answer_arrives_whole(self, ours, monkeypatch):
        """More than fits a record of TLS or a buffer of the kernel is no problem."""
        text = "\u00e9" * 300_000
        with Wire(lambda request: {"SecretString": text}) as wire:
            assert text == ask(wire, monkeypatch)
        with Wire(
            lambda request: {"SecretString": text}, tls=authority().server("127.0.0.1")
        ) as wire:
            assert text == ask(wire, monkeypatch)


class TestModules:
    """The private modules, next to the public ones that they stand in for."""

    def test_private_modules_are_there(self):
        """This Python still has what the cold path is short for."""
        assert "private" == native.private().kind
        assert "private" == native.modules().kind

    @pytest.mark.parametrize("missing", ["_ssl", "_socket"])
    def test_missing_module_means_the_public_ones(self, missing, monkeypatch):
        """A Python that lacks one of them is served all the same."""
        public = native.public()
        native.reset()
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, missing, None)
            patch.setattr(native, "public", lambda: public)
            assert public is native.modules()
        native.reset()

    def test_missing_hash_means_the_public_one(self, monkeypatch):
        """The sockets and the TLS may be the private ones all the same."""
        native.reset()
        for name in ("_sha2", "_sha256"):
            monkeypatch.setitem(sys.modules, name, None)
        found = native.modules()

        assert ("private", hashlib.sha256) == (found.kind, found.sha256)
        native.reset()

    def test_name_is_looked_up_while_tls_is_loaded(self, ours, monkeypatch):
        """A slow name server and the first load of TLS take place at once."""
        native.use(None)
        loaded, private = threading.Event(), native.private

        def load():
            made = private()
            loaded.set()
            return made

        def look_up(host, *more):
            assert loaded.wait(30)
            return socket.getaddrinfo(host, *more)

        monkeypatch.setattr(native, "private", load)
        monkeypatch.setattr(native, "resolver", lambda: look_up)
        with Wire(answer, tls=authority().server("localhost")) as wire:
            monkeypatch.setattr(
                Wire, "url", property(lambda wire: f"https://localhost:{wire.port}")
            )
            assert "x" == ask(wire, monkeypatch)

    @pytest.mark.process
    def test_resolver_loads_no_tls(self):
        """It is there before anything else is."""
        done = python(
            "import sys\n"
            "from lambda_ext.aws import native\n"
            "print(native.resolver().__name__, '_ssl' in sys.modules)\n"
        )
        assert ("getaddrinfo False\n", "") == (done.stdout, done.stderr)

    def test_hash_is_loaded_while_the_other_end_answers(self, ours, monkeypatch):
        """A server that says nothing in the handshake has not kept it from loading."""
        native.reset()
        context = authority().server("127.0.0.1")
        with Wire(answer, tls=context, handshake=False) as wire:
            with pytest.raises(exceptions.SourceTimeoutError):
                ask(wire, monkeypatch, timeout_s=0.2)

        assert native.modules()._sha256 is not None

    def test_tls_that_does_not_check_is_not_used(self, monkeypatch):
        """A private context with other defaults than today's is not trusted."""
        import _ssl

        lax = _ssl._SSLContext(native.PROTOCOL_TLS_CLIENT)
        lax.check_hostname = False
        lax.verify_mode = ssl.CERT_NONE
        monkeypatch.setattr(_ssl, "_SSLContext", lambda protocol: lax)
        native.reset()

        assert "public" == native.modules().kind
        native.reset()

    def test_private_context_checks_what_the_public_one_does(self):
        """Verification, versions, options and ciphers are the same."""
        private, public = native.private().context(), native.public().context()
        default = ssl.create_default_context()

        for name in ("verify_mode", "check_hostname", "minimum_version", "options",
                     "verify_flags"):  # fmt: skip
            assert int(getattr(public, name)) == int(getattr(private, name))
        assert default.verify_mode == private.verify_mode == ssl.CERT_REQUIRED
        assert private.minimum_version == ssl.TLSVersion.TLSv1_2
        assert public.get_ciphers() == private.get_ciphers()

    def test_hashes_are_the_standard_librarys(self, kind):
        """SHA-256 and HMAC of any length are those of `hashlib` and `hmac`."""
        import hashlib
        import hmac

        sha256 = native.modules().sha256

        for length in (0, 1, 55, 63, 64, 65, 128, 300):
            key, message = os.urandom(length), os.urandom(length * 3)
            assert hmac.digest(key, message, "sha256") == (
                native.hmac(sha256, key, message)
            )
            assert hashlib.sha256(message).digest() == sha256(message).digest()

    def test_answers_are_the_same_with_both(self, kind, server):
        """A whole call works with either kind of modules."""
        way = light.Light("secretsmanager")
        for _ in range(2):
            answer = way.call("GetSecretValue", {"SecretId": "db"})
            assert "value of db" == answer["SecretString"]
        way.close()
        assert 1 == server.connections


def test_response_of_tests_is_delimited():
    """The server of these tests says how long its answers are."""
    assert b"Content-Length: 1\r\n" in response(200, b"a")
