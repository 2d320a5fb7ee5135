"""TLS as a client sees it: what is spoken and what is refused, tickets, renewed certificates.

Mostly with openssl's own s_client. What must be refused is offered at security level 0, so that it
is the server that refuses.
"""

import asyncio
import contextlib
import datetime
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import time
import urllib.parse

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

import harness
from harness import Client, RawClient, assert_error, eventually, message, produce, token, unique

ASK = b"GET /ws/health?live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return harness.make_certificate(str(tmp_path_factory.mktemp("pair")))


@pytest.fixture(scope="module")
def server(make_shared_tls):
    return make_shared_tls()


@pytest.fixture(scope="module")
def make_shared_tls(redis, pair):
    made = []

    def make(**options):
        belfry = harness.Belfry(redis, tls_certificate=pair[0], tls_key=pair[1],
                                metrics_listen="127.0.0.1:0", **options)
        made.append(belfry)
        return belfry

    yield make
    for belfry in made:
        try:
            belfry.stop()
        finally:
            belfry.end()


@pytest.fixture
def make_tls(make_server, pair):
    def make(**options):
        options = {"tls_certificate": pair[0], "tls_key": pair[1],
                   "metrics_listen": "127.0.0.1:0", **options}
        return make_server(healthy=False, **options)
    return make


def s_client(server, *arguments, say=ASK, until_end=True):
    """Output and errors of one s_client that says something and hears the server out."""
    how = ["-ign_eof"] if until_end else []
    done = subprocess.run(
        ["openssl", "s_client", "-connect", "%s:%d" % server.address()[1], *how, *arguments],
        input=say, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=harness.TIMEOUT,
        check=False)
    return done.stdout.decode("latin-1")


def counter(server, name):
    """Of all workers."""
    return sum(int(n) for n in re.findall(r"^belfry_%s(?:_total)?\{[^}]*\} (\d+)" % name,
                                          server.metrics().text, re.M))


def counts(server, name, before, seconds=None):
    eventually(lambda: counter(server, name) > before, "%s counts" % name, seconds)


def tcp(server):
    return harness.connect(server.address())


class Tls:
    """TLS in memory over a socket, so that a test decides what goes over the wire, and when."""

    def __init__(self, server, certificate, start=True):
        self.sock = tcp(server)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = harness.trusting(certificate).wrap_bio(self.incoming, self.outgoing)
        if start:
            self.run(self.tls.do_handshake)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def out(self, pieces_of=None):
        wire = self.outgoing.read()
        for at in range(0, len(wire), pieces_of or len(wire) or 1):
            self.sock.sendall(wire[at:at + (pieces_of or len(wire))])

    def more(self):
        got = self.sock.recv(65536)
        if got:
            self.incoming.write(got)
        else:
            self.incoming.write_eof()

    def run(self, step, *arguments, pieces_of=None):
        while True:
            try:
                result = step(*arguments)
                self.out(pieces_of)
                return result
            except ssl.SSLWantReadError:
                self.out(pieces_of)
                self.more()

    def send(self, data, pieces_of=None):
        self.run(self.tls.write, data, pieces_of=pieces_of)

    def until(self, end):
        got = b""
        while end not in got:
            piece = self.run(self.tls.read, 65536)
            if not piece:
                raise EOFError(got)
            got += piece
        return got

    def hello(self):
        """What a client says first."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self.outgoing.read()


# ---- versions and ciphers -----------------------------------------------------------------------


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_new_versions_are_spoken(server, version):
    before = counter(server, "tls_handshakes")
    said = s_client(server, version)
    assert "HTTP/1.1 200" in said, said
    assert "TLSv" + version[-3:].replace("_", ".") in said
    # OpenSSL 3.5 says neither of TLS 1.3, which has neither.
    assert "Compression: " not in said or "Compression: NONE" in said
    assert version == "-tls1_3" or "Secure Renegotiation IS supported" in said
    counts(server, "tls_handshakes", before)


@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_old_versions_are_refused(server, version):
    before = counter(server, "tls_failures_no_common")
    said = s_client(server, version, "-cipher", "ALL:@SECLEVEL=0")
    assert "alert protocol version" in said, said
    assert "HTTP/1.1" not in said
    counts(server, "tls_failures_no_common", before)


def test_ssl_3_is_refused(server):
    """openssl has none any more: a ClientHello by hand, version 3.0, two ciphers of its time."""
    body = b"\x03\x00" + os.urandom(32) + b"\x00" + b"\x00\x04\x00\x0a\x00\x05" + b"\x01\x00"
    hello = b"\x01" + struct.pack(">I", len(body))[1:] + body
    before = counter(server, "tls_handshake_failures")
    with tcp(server) as sock:
        sock.sendall(b"\x16\x03\x00" + struct.pack(">H", len(hello)) + hello)
        said = harness.read_to_end(sock)
    assert said[:1] in (b"", b"\x15"), said  # nothing, or an alert
    assert said[5:6] in (b"", b"\x02")       # a fatal one
    counts(server, "tls_handshake_failures", before)


@pytest.mark.parametrize("cipher", [
    "AES128-GCM-SHA256",             # no forward secrecy
    "AES256-SHA",
    "DHE-RSA-AES128-GCM-SHA256",     # of the client's or our own group's strength
    "ECDHE-RSA-AES128-SHA",          # no authenticated encryption
    "ECDHE-RSA-AES256-SHA384",
    "ADH-AES128-GCM-SHA256",         # nobody is authenticated
    "AECDH-AES128-SHA",
    "NULL-SHA256",                   # nothing is encrypted
    "PSK-AES128-GCM-SHA256",
])
def test_weak_ciphers_are_refused(server, cipher):
    before = counter(server, "tls_failures_no_common")
    said = s_client(server, "-tls1_2", "-psk", "00", "-cipher", cipher + ":@SECLEVEL=0")
    assert "alert handshake failure" in said, said
    counts(server, "tls_failures_no_common", before)


@pytest.mark.parametrize("cipher", ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384",
                                    "ECDHE-RSA-CHACHA20-POLY1305"])
def test_strong_ciphers_are_spoken(server, cipher):
    said = s_client(server, "-tls1_2", "-cipher", cipher)
    assert "Cipher is " + cipher in said and "HTTP/1.1 200" in said, said


@pytest.mark.parametrize("offered, taken", [
    ("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384"),
    ("ECDHE-RSA-CHACHA20-POLY1305:ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"),
    ("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-CHACHA20-POLY1305", "ECDHE-RSA-AES128-GCM-SHA256"),
])
def test_the_order_is_the_servers_but_for_clients_without_aes(server, offered, taken):
    assert "Cipher is " + taken in s_client(server, "-tls1_2", "-cipher", offered)


@pytest.mark.parametrize("offered, taken", [("http/1.1", "http/1.1"), ("h2,http/1.1", "http/1.1"),
                                            ("h2", None), (None, "")])
def test_the_application_protocol_is_http_1_1(server, offered, taken):
    said = s_client(server, *(["-alpn", offered] if offered else []))
    if taken is None:
        assert "alert no application protocol" in said, said
    elif taken:
        assert "ALPN protocol: " + taken in said and "HTTP/1.1 200" in said, said
    else:
        assert "No ALPN negotiated" in said and "HTTP/1.1 200" in said, said


def test_renegotiation_is_refused(server):
    said = s_client(server, "-tls1_2", say=b"R\n", until_end=False)
    assert "RENEGOTIATING" in said and "no renegotiation" in said, said
    with_input = s_client(server, "-tls1_2", say=ASK + b"R\n")  # the server goes on
    assert "HTTP/1.1 200" in with_input


def test_a_client_that_updates_its_keys_is_served(server):
    said = s_client(server, "-tls1_3", say=b"K\n" + ASK, until_end=False)
    assert "KEYUPDATE" in said, said


# ---- what is not TLS, or no whole handshake -----------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "PUT"])
def test_plain_http_is_told_what_to_speak(server, method):
    before = counter(server, "tls_failures_not_tls")
    with tcp(server) as sock:
        sock.sendall(("%s /ws?token=%s HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\n" % (
            method, token())).encode() + b"x" * 30000)
        said = b""
        while piece := sock.recv(65536):  # a reset would raise
            said += piece
    answer = read_answer(said)
    body = assert_error(answer, 400)
    assert "wss://" in body["message"]
    assert answer.headers["Connection"] == "close"
    counts(server, "tls_failures_not_tls", before)


def read_answer(said):
    a, b = socket.socketpair()
    with a, b:
        a.sendall(said)
        a.shutdown(socket.SHUT_WR)
        return harness.read_answer(b)


@pytest.mark.parametrize("garbage", [b"\0" * 64, b"\xff" * 64, b"SSH-2.0-x\r\n",
                                     b"\x16\x03\x01\x40\x01" + b"a" * 0x4001,
                                     b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
                                     b"\x15\x03\x01\x00\x02\x02\x00", b"\x80\x2e\x01\x00\x02"],
                         ids=["zeros", "ones", "ssh", "too long", "empty hello", "alert", "ssl 2"])
def test_garbage_ends_the_connection(server, garbage):
    before = counter(server, "tls_handshake_failures")
    with tcp(server) as sock:
        with contextlib.suppress(OSError):  # it may have been seen through already
            sock.sendall(garbage)
            sock.shutdown(socket.SHUT_WR)
        said = harness.read_to_end(sock)
    assert said[:1] in (b"", b"\x15"), said
    counts(server, "tls_handshake_failures", before)


def test_garbage_after_the_handshake_ends_the_connection(server, pair):
    with Tls(server, pair[0]) as c:
        c.sock.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        harness.read_to_end(c.sock)
    with Tls(server, pair[0]) as c:
        c.send(ASK)
        assert b"HTTP/1.1 200" in c.until(b"}")


def test_a_client_that_does_not_trust_the_certificate_is_counted(server):
    before = counter(server, "tls_failures_alert")
    said = s_client(server, "-verify_return_error", "-tls1_2")
    assert "certificate verify failed" in said or "verify error" in said, said
    counts(server, "tls_failures_alert", before)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_a_handshake_that_stops_in_the_middle_ends_in_time(make_tls, pair, share):
    server = make_tls(handshake_timeout="300ms", workers="1")
    with Tls(server, pair[0], start=False) as c:
        hello = c.hello()
        c.sock.sendall(hello[:int(len(hello) * share)])
        harness.read_to_end(c.sock)
    assert counter(server, "tls_failures_timeout") == 1
    assert counter(server, "handshake_timeouts") == 1
    with Tls(server, pair[0], start=False) as c:
        c.sock.sendall(c.hello()[:int(len(hello) * share)])
    counts(server, "tls_failures_left", 0)
    assert counter(server, "tls_handshake_failures") == 2
    assert counter(server, "tls_handshakes_open") == 0


def test_handshakes_that_do_not_get_on_keep_nobody_out(make_tls, pair):
    server = make_tls(workers="1", max_tls_handshakes="4", handshake_timeout="1m",
                      listen=["127.0.0.1:0", "unix:" + harness.make_directory() + "/s"])
    silent = [tcp(server) for _ in range(6)]
    eventually(lambda: counter(server, "tls_handshakes_open") == 4, "four under way")
    counts(server, "tls_handshake_pauses", 0)
    with server.connect(index=1) as sock:  # others are accepted meanwhile
        assert harness.raw_http(sock, ASK).status == 200
    with Tls(server, pair[0]) as c:
        c.send(ASK)
        assert b"HTTP/1.1 200" in c.until(b"}")
    assert counter(server, "tls_failures_shed") >= 4
    for sock in silent:
        sock.close()


def test_many_handshakes_at_once_let_others_pass(make_tls, pair):
    server = make_tls(workers="1")
    with Tls(server, pair[0]) as first:
        crowd = [Tls(server, pair[0], start=False) for _ in range(120)]
        for c in crowd:
            c.sock.sendall(c.hello())
        first.send(ASK)
        assert b"HTTP/1.1 200" in first.until(b"}")
        for c in crowd:
            c.run(c.tls.do_handshake)
            c.send(ASK)
        for c in crowd:
            assert b"HTTP/1.1 200" in c.until(b"}")
            c.sock.close()
    assert counter(server, "tls_handshakes") == 121
    assert counter(server, "turn_bound_hits") > 0
    in_kernel = counter(server, "tls_in_kernel")
    assert in_kernel == (121 if os.path.exists("/sys/module/tls") else 0)


# ---- data ---------------------------------------------------------------------------------------


def upgrade(c, user, query=""):
    c.send(RawClient.request(query="token=%s%s" % (urllib.parse.quote(token(user)), query)))
    return c.until(b'"FULL_SYNC"')


def test_messages_of_many_records_go_both_ways_in_whatever_pieces(server, pair, user):
    text = "x" * 60000
    command = '{"type":"ping","payload":{"client_time":"%s"}}' % text
    with Tls(server, pair[0]) as c:
        upgrade(c, user)
        for pieces_of in (None, 1400, 16384):
            c.send(RawClient.frame(1, command), pieces_of=pieces_of)
            assert text.encode() in c.until(b'"latency_ms"')
        c.send(RawClient.frame(1, '{"type":"ping"}'), pieces_of=1)
        assert b'"pong"' in c.until(b'"pong"')


def test_a_client_that_has_said_its_last_is_still_answered(server, pair):
    with Tls(server, pair[0]) as c:
        c.send(b"GET /ws/health HTTP/1.1\r\nHost: x\r\n\r\n")
        c.out()
        with contextlib.suppress(ssl.SSLWantReadError):
            c.tls.unwrap()  # close_notify
        c.out()
        c.sock.shutdown(socket.SHUT_WR)
        wire = harness.read_to_end(c.sock)
    assert len(wire) > 200 and wire[:1] == b"\x17", wire  # application data: the answer


def test_the_end_is_announced(server, pair):
    """close_notify, so that nobody could have cut the answer short."""
    with Tls(server, pair[0]) as c:
        c.send(ASK)
        with pytest.raises(EOFError) as e:
            c.until(b"never")
        assert b"HTTP/1.1 200" in e.value.args[0]


async def test_who_vanishes_in_the_middle_of_a_record_is_lost(make_tls, pair, user):
    server = make_tls(workers="1")
    c = Tls(server, pair[0])
    upgrade(c, user)
    c.tls.write(RawClient.frame(1, '{"type":"ping"}'))
    c.sock.sendall(c.outgoing.read()[:-3])
    mark = server.mark()
    c.sock.close()
    server.wait_log("connection-closed.*close=lost", after=mark)


async def test_a_slow_reader_gets_everything_in_order(make_tls, redis, pair, user):
    server = make_tls(workers="1", history_size="200")
    slow = Tls(server, pair[0])
    slow.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
    upgrade(slow, user)
    sent = [message(user=user, payload={"text": "x" * 30000, "n": n}) for n in range(60)]
    produce(redis, user, *sent)
    got = slow.until(sent[-1]["id"].encode())
    places = [got.index(one["id"].encode()) for one in sent]
    assert places == sorted(places)
    slow.sock.close()


# ---- sessions -----------------------------------------------------------------------------------


def begin_session(server, path, version="-tls1_3"):
    said = s_client(server, version, "-sess_out", path)
    assert "New, TLSv" in said and os.path.getsize(path) > 0, said


def is_resumed(server, path, version="-tls1_3"):
    said = s_client(server, version, "-sess_in", path)
    assert "HTTP/1.1 200" in said, said
    return "Reused, TLSv" in said


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_session_is_resumed_by_every_worker(server, tmp_path, version):
    path = str(tmp_path / "session")
    before = counter(server, "tls_handshakes_resumed")
    begin_session(server, path, version)
    for _ in range(12):  # each comes to one of two workers
        assert is_resumed(server, path, version)
    resumed = [int(n) for n in re.findall(
        r"^belfry_tls_handshakes_resumed_total\{[^}]*\} (\d+)", server.metrics().text, re.M)]
    assert sum(resumed) == before + 12 and sum(n > 0 for n in resumed) == 2, resumed


def test_s_client_reconnects(server):
    said = s_client(server, "-reconnect", "-tls1_2", until_end=False)
    assert said.count("Reused, TLSv1.2") == 5, said


def test_sessions_outlive_a_reload_and_an_upgrade(make_tls, tmp_path):
    server = make_tls()
    path = str(tmp_path / "session")
    begin_session(server, path)
    mark = server.mark()
    server.signal(signal.SIGHUP)
    server.wait_log(" reloaded ", after=mark)
    for _ in range(4):
        assert is_resumed(server, path)
    server.upgrade()
    for _ in range(4):
        assert is_resumed(server, path)


def test_running_workers_get_new_keys(make_tls, tmp_path):
    life_s = 2.0
    server = make_tls(tls_session_time="%ds" % life_s)
    path = str(tmp_path / "session")
    server.wait_log("tickets-rotated")
    took_s = life_s
    while took_s >= life_s:  # a slow machine tries again
        began = time.monotonic()
        begin_session(server, path)
        resumed = [is_resumed(server, path) for _ in range(6)]
        took_s = time.monotonic() - began
    assert all(resumed)
    mark = server.mark()
    server.wait_log("tickets-rotated", after=mark)
    mark = server.mark()
    server.wait_log("tickets-rotated", after=mark)
    assert not is_resumed(server, path)


def test_no_session_is_resumed_when_none_may_be(make_tls):
    server = make_tls(tls_session_time="0")
    for version in ("-tls1_2", "-tls1_3"):
        said = s_client(server, "-reconnect", version, until_end=False)
        assert "New, TLSv" in said and "Reused" not in said, said
        assert "TLS session ticket" not in said, said


# ---- certificates -------------------------------------------------------------------------------


def make_pair(directory, name, *arguments):
    certificate, key = str(directory / (name + ".pem")), str(directory / (name + ".key"))
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30",
                    "-subj", "/CN=" + name, "-keyout", key, "-out", certificate, *arguments],
                   check=True, capture_output=True)
    return certificate, key


def make_expired(directory):
    """openssl's own tool makes none."""
    certificate, key = make_pair(directory, "old")
    with open(key, "rb") as f:
        private = serialization.load_pem_private_key(f.read(), None)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "old")])
    now = datetime.datetime.utcnow()
    made = (x509.CertificateBuilder().subject_name(name).issuer_name(name)
            .public_key(private.public_key()).serial_number(7)
            .not_valid_before(now - datetime.timedelta(days=9))
            .not_valid_after(now - datetime.timedelta(days=1)).sign(private, hashes.SHA256()))
    with open(certificate, "wb") as f:
        f.write(made.public_bytes(serialization.Encoding.PEM))
    return certificate, key


def subject(server):
    return re.search(r"subject=CN ?= ?(\S+)", s_client(server)).group(1)


def use(server, pair):
    """Puts a pair where the configuration looks for it."""
    for source, target in zip(pair, (server.options["tls_certificate"],
                                     server.options["tls_key"])):
        with open(source, "rb") as f, open(target + ".new", "wb") as g:
            g.write(f.read())
        os.replace(target + ".new", target)


def reload(server):
    mark = server.mark()
    server.signal(signal.SIGHUP)
    return server.wait_log(" (reloaded|reload-refused) ", after=mark)


@pytest.fixture
def renewable(make_tls, tmp_path):
    paths = [str(tmp_path / "now.pem"), str(tmp_path / "now.key")]
    for source, target in zip(make_pair(tmp_path, "first"), paths):
        os.link(source, target)
    socket_path = harness.make_directory() + "/s"
    yield make_tls(tls_certificate=paths[0], tls_key=paths[1], drain_time="500ms",
                   listen=["127.0.0.1:0", "unix:" + socket_path])
    harness.remove_directory(os.path.dirname(socket_path))


async def test_a_renewed_certificate_costs_plain_clients_nothing_and_tls_clients_no_message(
        renewable, redis, tmp_path):
    def trust():
        return harness.trusting(renewable.options["tls_certificate"])
    plain_user, tls_user = unique(), unique()
    sent = {plain_user: [], tls_user: []}
    done = asyncio.Event()

    async def produce_on():
        while not done.is_set():
            for user, messages in sent.items():
                messages.append(message(user=user))
                produce(redis, user, messages[-1])
            await asyncio.sleep(0.01)

    async with await Client.attach(renewable, plain_user, index=1) as plain:
        over = await Client.attach(renewable, tls_user, tls=trust())
        producer = asyncio.create_task(produce_on())
        first = await over.next()
        use(renewable, make_pair(tmp_path, "second"))
        assert " reloaded " in await asyncio.to_thread(reload, renewable)
        code, reason = await over.closed()
        assert (code, reason) == (1012, "restarting")
        got = over.seen[1:]
        assert got[0] == first
        again = await Client.attach(renewable, tls_user, tls=trust(),
                                    query={"last_id": got[-1]["id"]})
        assert again.sync["sync"]["recovered"] is True
        done.set()
        await producer
        for user, messages in sent.items():  # one that comes last and live
            messages.append(message(user=user))
            produce(redis, user, messages[-1])
        got += await again.until(lambda m: m["id"] == sent[tls_user][-1]["id"])
        assert harness.ids(got) == harness.ids(sent[tls_user])
        heard = await plain.until(lambda m: m["id"] == sent[plain_user][-1]["id"])
        assert harness.ids(heard) == harness.ids(sent[plain_user])
        await again.close()
    assert await asyncio.to_thread(subject, renewable) == "second"


@pytest.mark.parametrize("spoil, option, words", [
    (lambda c, k: os.unlink(c), "tls_certificate", "No such file"),
    (lambda c, k: os.unlink(k), "tls_key", "No such file"),
    (lambda c, k: open(c, "w").close(), "tls_certificate", "no usable certificate"),
    (lambda c, k: open(k, "a").truncate(200), "tls_key", "no usable private key"),
    (lambda c, k: subprocess.run(["openssl", "genpkey", "-algorithm", "RSA", "-out", k], check=True,
                                 capture_output=True), "tls_key", "not that of|is not the key of"),
    (lambda c, k: subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:1024", "-nodes", "-subj", "/CN=x", "-keyout", k,
         "-out", c], check=True, capture_output=True), "tls_certificate", "too short"),
], ids=["no certificate", "no key", "empty certificate", "cut key", "another key", "short key"])
def test_a_pair_that_cannot_be_used_is_refused_as_a_whole(renewable, spoil, option, words):
    path = renewable.options[option]
    now = renewable.options["tls_certificate"], renewable.options["tls_key"]
    use(renewable, now)  # files of their own, no links
    spoil(*now)
    line = reload(renewable)
    assert " reload-refused " in line, line
    # A long path is cut short by whoever looks whether the file can be read.
    assert re.search("%s: .*%s.*(%s)" % (option.replace("_", "-"), re.escape(path[:20]), words),
                     line), line
    assert subject(renewable) == "first"


@pytest.mark.parametrize("make, words", [
    (lambda tmp: make_pair(tmp, "old", "-days", "1"), "expires soon"),
    (make_expired, "has expired")], ids=["soon", "expired"])
def test_an_old_certificate_is_told_of_with_its_date(renewable, tmp_path, make, words):
    use(renewable, make(tmp_path))
    mark = renewable.mark()
    assert " reloaded " in reload(renewable)
    line = renewable.wait_log("config-warning.*tls-certificate", after=mark)
    path = re.escape(renewable.options["tls_certificate"])
    assert re.search(path + r": it %s,? at \d{4}-" % words, line), line
    assert subject(renewable) == "old"
    ends = re.findall(r"^belfry_tls_certificate_ends_at_seconds\{[^}]*\} (\d+)",
                      renewable.metrics().text, re.M)
    assert abs(max(map(int, ends)) - time.time()) < 2 * 86400, ends


async def test_quit_closes_tls_connections_over_drain_time(make_tls, pair):
    server = make_tls(drain_time="2s")
    tls = harness.trusting(pair[0])
    clients = [await Client.attach(server, unique(), tls=tls) for _ in range(20)]
    loop = asyncio.get_running_loop()
    ends = []

    async def wait(client):
        assert await client.closed() == (1001, "server shutting down")
        ends.append(loop.time())

    server.signal(signal.SIGQUIT)
    await asyncio.gather(*[wait(client) for client in clients])
    assert server.wait() == 0
    assert max(ends) - min(ends) > 0.7
