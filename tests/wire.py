"""A server on loopback that misbehaves on the wire, as it is told.

`Wire` reads whole requests and answers each with what its *answer* function
returns, or what an *upstream* server says.  Before the bytes leave, they go
through a fault: the next one of ``wire.faults``, or ``wire.fault``, which is `whole`.

    with Wire(fake.answer) as wire:
        wire.faults += [cut(17), reset, whole]
        ... AWS_ENDPOINT_URL=wire.url ...
        assert 3 == len(wire.requests)

With ``Wire(tls=authority().server("127.0.0.1"))`` it speaks TLS, and
``authority().path``, a file, or ``authority().directory`` is what AWS_CA_BUNDLE
must say to trust it.
"""

from __future__ import annotations

import atexit
import contextlib
import datetime
import functools
import hashlib
import http.client
import ipaddress
import json
import os
import shutil
import socket
import ssl
import struct
import tempfile
import threading
from email.utils import formatdate

HOLD_S = 30.0  # a silent server gives up then, should a test forget it


# -- faults: what is done to the bytes of one response ----------------------
def whole(peer, data):
    """Send everything and keep the connection."""
    peer.send(data())


def stale(peer, data):
    """Send everything, then close without having said so."""
    peer.send(data())
    peer.close()


def reset(peer, data):
    """Send nothing and reset the connection."""
    peer.reset()


def vanish(peer, data):
    """Send nothing and close the connection."""
    peer.close()


def mute(peer, data):
    """Send nothing, and wait for the next request."""


def silent(peer, data):
    """Send nothing, and keep the connection open."""
    peer.hold()


def doubled(peer, data):
    """Send everything twice."""
    peer.send(data() * 2)


def cut(count, then=vanish):
    """Send the first *count* bytes; then close, `reset` or fall `silent`."""

    def fault(peer, data):
        peer.send(data()[:count])
        then(peer, data)

    return fault


def instead(blob, then=vanish):
    """Send *blob* instead of the response."""

    def fault(peer, data):
        peer.send(blob)
        then(peer, data)

    return fault


def late(seconds):
    """Send everything, *seconds* after the request."""

    def fault(peer, data):
        peer.wire.stopped.wait(seconds)
        peer.send(data())

    return fault


def dripping(first, every_s):
    """Send *first* bytes, then one byte every *every_s* seconds."""

    def fault(peer, data):
        blob = data()
        peer.send(blob[:first])
        for byte in blob[first:]:
            if peer.wire.stopped.wait(every_s):
                break
            peer.send(bytes((byte,)))

    return fault


def refusing(code, message="", status=400, **headers):
    """Answer with an error of AWS's instead."""

    def fault(peer, data):
        peer.send(error(code, message, status, **headers))

    return fault


def redirecting(location, status=301):
    """Answer with a redirect instead."""

    def fault(peer, data):
        peer.send(response(status, b"", Location=location))

    return fault


def failing(status=500, body=b"<html>", **headers):
    """Answer with a status that is no answer of the service's."""

    def fault(peer, data):
        peer.send(response(status, body, **headers))

    return fault


# -- what a server says -----------------------------------------------------
def response(status=200, body=b"", **headers):
    """Return the bytes of a response; a dict becomes JSON."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Whatever"]
    defaults = {"Content-Length": str(len(body)), "Date": formatdate(usegmt=True)}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    for name, value in {**defaults, **named}.items():
        if value is not None:
            lines.append(f"{name}: {value}")
    return "\r\n".join((*lines, "", "")).encode("latin-1") + body


def error(code, message="", status=400, **headers):
    """Return the bytes of an error, as the JSON protocols have it."""
    return response(status, {"__type": code, "message": message}, **headers)


class Request:
    """A request as it came over the wire."""

    def __init__(self, method, target, headers, body, connection):
        self.method = method
        self.target = target
        self.headers = headers  # names in small letters
        self.body = body
        self.connection = connection  # number of the connection, from 1

    @property
    def operation(self):
        """Return the AWS operation that it calls."""
        target = self.headers.get("x-amz-target", "")
        if target:
            return target.rpartition(".")[2]
        if self.target.startswith("/configurationsessions"):
            return "StartConfigurationSession"
        return "GetLatestConfiguration"

    @property
    def parameters(self):
        """Return its body, which is JSON."""
        return json.loads(self.body)


class Peer:
    """One connection, from the server's side."""

    def __init__(self, wire, sock):
        self.wire = wire
        self.sock = sock
        self.buffer = b""

    def send(self, data):
        self.sock.sendall(data)

    def hold(self):
        self.wire.stopped.wait(HOLD_S)

    def close(self):
        if isinstance(self.sock, ssl.SSLSocket):
            with contextlib.suppress(OSError, ValueError):
                self.sock.settimeout(1.0)
                self.sock = self.sock.unwrap()  # says so, unlike `reset`
        self.sock.close()

    def reset(self):
        self.sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        self.sock.close()

    def request(self, number):
        """Return the next request, None at the end."""
        while b"\r\n\r\n" not in self.buffer:
            if not self._more():
                return None
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", 0))
        while len(self.buffer) < length:
            if not self._more():
                return None
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return Request(method, target, headers, body, number)

    def _more(self):
        data = self.sock.recv(65536)
        self.buffer += data
        return bool(data)


class Wire:
    """The server; a context manager that ends with all its threads gone."""

    def __init__(self, answer=None, *, upstream=None, tls=None, handshake=True):
        self.answer = answer
        self.upstream = upstream
        self.faults = []
        self.fault = whole  # what is done when there is none left
        self.requests = []
        self.connections = 0
        self.refused_handshakes = 0
        self.stopped = threading.Event()
        self._tls = tls
        self._handshake = handshake
        self._lock = threading.Lock()
        self._threads = []
        self._peers = []
        self._server = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._server.getsockname()[1]

    @property
    def url(self):
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self):
        self._start(self._accept)
        return self

    def __exit__(self, *exc):
        self.stopped.set()
        with socket.create_connection(("127.0.0.1", self.port)):
            pass  # wakes the accepting thread
        for peer in self._peers:
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(HOLD_S)
        self._server.close()

    def hang_up(self):
        """Close every connection, as a server does with idle ones."""
        for peer in self._peers:
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)

    def _start(self, function, *args):
        thread = threading.Thread(target=function, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        while True:
            sock, _ = self._server.accept()
            if self.stopped.is_set():
                sock.close()
                return
            with self._lock:
                self.connections += 1
                number = self.connections
            self._start(self._serve, sock, number)

    def _serve(self, sock, number):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = Peer(self, sock)
        self._peers.append(peer)
        if not self._handshake:
            peer.hold()
        elif self._tls is not None:
            try:
                peer.sock = self._tls.wrap_socket(sock, server_side=True)
            except OSError:
                with self._lock:
                    self.refused_handshakes += 1
                sock.close()
                return
        try:
            self._answer_all(peer, number)
        except (OSError, ValueError):
            pass  # the client went away, or the fault closed the connection
        finally:
            peer.sock.close()

    def _answer_all(self, peer, number):
        while (request := peer.request(number)) is not None:
            with self._lock:
                self.requests.append(request)
                fault = self.faults.pop(0) if self.faults else self.fault
            fault(peer, functools.partial(self._response, request))

    def _response(self, request):
        if self.upstream is not None:
            return forwarded(self.upstream, request)
        answer = self.answer(request)
        return answer if isinstance(answer, bytes) else response(200, answer)


def forwarded(upstream, request):
    """Return what the plain HTTP server at the URL *upstream* answers."""
    connection = http.client.HTTPConnection(upstream.removeprefix("http://").strip("/"))
    with contextlib.closing(connection):
        connection.request(
            request.method, request.target, request.body, request.headers
        )
        answer = connection.getresponse()
        body = answer.read()
    kept = {
        name.replace("-", "_"): value
        for name, value in answer.getheaders()
        if name.lower() not in ("connection", "content-length", "transfer-encoding")
    }
    return response(answer.status, body, **kept)


# -- certificates -----------------------------------------------------------
class Authority:
    """A certificate authority that only those trust who are given its path."""

    def __init__(self, name="A test's authority", key=None):
        """Be called *name*, a text or an `x509.Name`, and have *key* or a new one."""
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec

        if isinstance(name, str):
            name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self._key = key or ec.generate_private_key(ec.SECP256R1())
        self._name = name
        self._folder = tempfile.mkdtemp(prefix="authority-")
        atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
        extension = x509.BasicConstraints(ca=True, path_length=None)
        self._certificate = self._signed(
            self._name, self._key, days=(-1, 30), extensions=[extension]
        )
        self.pem = self._pem(self._certificate)
        self.path = os.path.join(self._folder, "ca.pem")
        with open(self.path, "wb") as file:
            file.write(self.pem)
        self.directory = os.path.join(self._folder, "ca")
        os.mkdir(self.directory)
        with open(os.path.join(self.directory, hashed(self._name)), "wb") as file:
            file.write(self.pem)

    def server(self, *hosts, days=(-1, 30)):
        """Return a context for a server whose certificate names *hosts*."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.issued(*hosts, days=days))
        return context

    def issued(self, *hosts, days=(-1, 30)):
        """Return the path of a key and its certificate, which names *hosts*."""
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, hosts[0])])
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        certificate = self._signed(name, key, days=days, extensions=[names])
        path = os.path.join(self._folder, f"{id(certificate):x}.pem")
        with open(path, "wb") as file:
            file.write(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
            file.write(self._pem(certificate))
        return path

    def _signed(self, subject, key, *, days, extensions):
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes

        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=days[0]))
            .not_valid_after(now + datetime.timedelta(days=days[1]))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self._key, hashes.SHA256())

    @staticmethod
    def _pem(certificate):
        from cryptography.hazmat.primitives import serialization

        return certificate.public_bytes(serialization.Encoding.PEM)


@functools.cache
def authority():
    """Return the one authority of this test run."""
    return Authority()


def hashed(name):
    """Return the name of the file in which OpenSSL looks for the certificate of *name*."""
    from cryptography import x509

    # Canonical: small letters, single spaces, UTF-8, and no header of the sequence.
    attributes = [
        x509.NameAttribute(
            attribute.oid,
            " ".join(attribute.value.lower().split()),
            x509.name._ASN1Type.UTF8String,
        )
        for attribute in name
    ]
    parts = [x509.Name([attribute]).public_bytes() for attribute in attributes]
    assert all(part[1] == len(part) - 2 for part in parts)  # a header of two bytes
    value = hashlib.sha1(b"".join(part[2:] for part in parts)).digest()[:4]
    return f"{int.from_bytes(value, 'little'):08x}.0"


def _general_name(host):
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
