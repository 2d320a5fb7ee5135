"""Whose connection it is behind proxies: X-Forwarded-For, the PROXY protocol, who is believed."""

import contextlib
import json
import re
import socket
import ssl
import struct
import subprocess

import pytest

import harness
from harness import Client, RawClient, Refused, token

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
HEALTH = b"GET /ws/health?live HTTP/1.1\r\nHost: x\r\n\r\n"
CLIENT, OTHER, PROXY = "198.51.100.7", "198.51.100.8", "127.0.0.1"


def v1(source=CLIENT, family="TCP4", to="10.0.0.1"):
    return ("PROXY %s %s %s 4660 80\r\n" % (family, source, to)).encode()


def v2(source=CLIENT, command=1, tlvs=b""):
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    to = "2001:db8::1" if ":" in source else "10.0.0.1"
    body = (socket.inet_pton(family, source) + socket.inet_pton(family, to)
            + struct.pack(">HH", 4660, 80) + tlvs)
    return (SIGNATURE + bytes([0x20 | command, 0x21 if ":" in source else 0x11])
            + struct.pack(">H", len(body)) + body)


def shown(server, user):
    """What belfryctl tells of the user's connections."""
    got = subprocess.run([harness.BELFRYCTL, "show", "--user=" + user, "--json", "--config",
                          server.config], capture_output=True, text=True, check=False, timeout=20)
    return [json.loads(line) for line in got.stdout.splitlines()]


def addresses(server, user):
    return [one["client"] for one in shown(server, user)]


def attached(server, user, headers=(), before=b"", **how):
    """A WebSocket; before: bytes in the same packet as the request."""
    c = RawClient.__new__(RawClient)
    c.sock, c.buffer = how.pop("sock", None) or server.connect(), b""
    c.sock.sendall(before + RawClient.request("/ws", "token=" + token(user), headers, **how))
    head = c._head()
    c.status = int(head.split(b" ", 2)[1])
    if c.status == 101:
        assert c.receive_json()["type"] == "FULL_SYNC"
    return c


def forwarded(*names):
    return ["X-Forwarded-For: " + one for one in names]


def counted(server, name):
    return server.stats()["statistics"]["connections"][name]


# ---- X-Forwarded-For ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def behind(make_shared):
    return make_shared(trusted_proxies="127.0.0.0/8, 10.0.0.0/8, ::1")


@pytest.mark.parametrize("names, expected", [
    ([CLIENT], CLIENT),
    (["203.0.113.1, " + CLIENT], CLIENT),
    (["203.0.113.1", CLIENT + ", 10.1.2.3"], CLIENT),
    (["2001:db8::7"], "2001:db8::7"),
    (["[2001:db8::7]:1234, 10.0.0.1"], "2001:db8::7"),
    (["nonsense"], PROXY),
    ([], PROXY)])
def test_the_last_address_that_no_trusted_proxy_has_is_the_clients(behind, user, names, expected):
    with attached(behind, user, forwarded(*names)):
        assert addresses(behind, user) == [expected]
    behind.wait_log("connection-closed .*address=%s " % re.escape(expected))


def test_nobody_else_is_believed(server, user):
    with attached(server, user, forwarded(CLIENT)):
        assert addresses(server, user) == [PROXY]


def test_a_unix_socket_is_a_proxy_only_if_said_so(make_server, user):
    server = make_server(listen=["127.0.0.1:0", "unix:/tmp/" + harness.unique("belfry")],
                         trusted_proxies="unix", max_connections_per_address="1")
    with attached(server, user, forwarded(CLIENT), sock=server.connect(1)) as c:
        assert c.status == 101 and addresses(server, user) == [CLIENT]
        with attached(server, user, forwarded(CLIENT), sock=server.connect(1)) as again:
            assert again.status == 429
        with attached(server, user, sock=server.connect(1)) as unnamed:
            assert unnamed.status == 101
        with attached(server, user + "-tcp", forwarded(CLIENT)):
            assert addresses(server, user + "-tcp") == [PROXY]


def test_limits_go_by_the_client_and_survive_reload_and_crash(make_server, user):
    server = make_server(trusted_proxies="127.0.0.1", max_connections_per_address="3")
    with contextlib.ExitStack() as kept:
        for _ in range(3):
            kept.enter_context(attached(server, user, forwarded(CLIENT)))

        def refused(address):
            with attached(server, user, forwarded(address)) as c:
                return c.status == 429

        for _ in range(4):  # whichever worker it is
            assert refused(CLIENT)
            assert not refused(OTHER)
        server.signal(harness.signal.SIGHUP)
        server.wait_status(lambda s: s["generation"] == 2 and all(
            w["generation"] == 2 for w in s["workers"]), "handed over")
        assert set(addresses(server, user)) == {CLIENT}
        for _ in range(4):
            assert refused(CLIENT)
        for pid in server.worker_pids():  # all of its connections with them
            harness.os.kill(pid, harness.signal.SIGKILL)
        server.wait_status(lambda s: len(s["workers"]) == 2 and all(
            w["state"] == "ready" and w["restarts"] for w in s["workers"]), "new workers")
        for _ in range(3):
            kept.enter_context(c := attached(server, user, forwarded(CLIENT)))
            assert c.status == 101
        assert refused(CLIENT)
        assert counted(server, "address_limit_refusals") == 9


def test_a_proxy_may_bring_several_clients_over_one_connection(make_server, user):
    server = make_server(trusted_proxies="127.0.0.1", auth_failure_rate="2", workers="1")
    with server.connect() as sock:
        def ask(address):
            head = "GET /ws/stats?token=bad HTTP/1.1\r\nHost: x\r\n%s\r\n" % (
                "X-Forwarded-For: %s\r\n" % address if address else "")
            return harness.raw_http(sock, head.encode()).status

        assert [ask(CLIENT) for _ in range(3)] == [401, 401, 429]
        assert ask(OTHER) == 401
        assert [ask(None) for _ in range(4)] == [401] * 4  # the proxy's own
        assert ask(CLIENT) == 429
    assert counted(server, "auth_rate_refusals") == 2


# ---- PROXY protocol -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def proxied(make_shared):
    return make_shared_proxied(make_shared)


def make_shared_proxied(make, **options):
    """Its own listener for the harness, who sends no header: an address that is not trusted."""
    return make(trusted_proxies="127.0.0.2", proxy_protocol="on", **options)


def from_proxy(server):
    """A socket whose peer is the trusted proxy."""
    family, where = server.address()
    s = socket.socket(family)
    s.settimeout(harness.TIMEOUT)
    s.bind(("127.0.0.2", 0))
    s.connect(where)
    return s


@pytest.mark.parametrize("header, expected", [
    (v1(), CLIENT), (v1("2001:db8::7", "TCP6", "2001:db8::1"), "2001:db8::7"),
    (b"PROXY UNKNOWN\r\n", "127.0.0.2"), (v2(), CLIENT), (v2("2001:db8::7"), "2001:db8::7"),
    (v2(command=0), "127.0.0.2"), (v2(tlvs=b"\x04\0\x04abcd\x02\0\x01x"), CLIENT),
    (SIGNATURE + b"\x21\x00\x00\x00", "127.0.0.2"),
    (SIGNATURE + b"\x21\x31\x00\xd8" + b"/" * 216, "127.0.0.2")],
    ids=["v1", "v1 IPv6", "v1 UNKNOWN", "v2", "v2 IPv6", "v2 LOCAL", "v2 TLVs", "v2 UNSPEC",
         "v2 unix"])
def test_a_header_tells_whose_connection_it_is(proxied, user, header, expected):
    with attached(proxied, user, before=header, sock=from_proxy(proxied)) as c:
        assert addresses(proxied, user) == [expected]
        c.send(1, "ping")
        assert c.receive() == (1, b"pong")


@pytest.mark.parametrize("header", [v1(), v2(), v2("2001:db8::7", tlvs=b"\x04\0\x01x")],
                         ids=["v1", "v2", "v2 TLV"])
def test_a_header_may_come_in_pieces(proxied, header):
    for at in range(1, len(header)):
        with from_proxy(proxied) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.sendall(header[:at])
            sock.sendall(header[at:])
            assert harness.raw_http(sock, HEALTH).status == 200
    with from_proxy(proxied) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in header:
            sock.sendall(bytes([byte]))
        assert harness.raw_http(sock, HEALTH).status == 200


@pytest.mark.parametrize("header", [
    b"", b"PROXY TCP4 nobody 10.0.0.1 1 2\r\n", b"PROXY " + b"x" * 200,
    SIGNATURE + b"\x21\x11\xff\xff", SIGNATURE + b"\x31\x11\x00\x0c" + b"\0" * 12],
    ids=["none", "v1 name", "v1 too long", "v2 too long", "v3"])
def test_a_connection_of_a_proxy_without_a_good_header_ends(proxied, header):
    before = counted(proxied, "proxy_header_errors")
    with from_proxy(proxied) as sock:
        sock.sendall(header + HEALTH)
        assert harness.read_to_end(sock) == b""
    assert counted(proxied, "proxy_header_errors") == before + 1


def test_who_is_no_proxy_sends_no_header(proxied, user):
    with attached(proxied, user):
        assert addresses(proxied, user) == [PROXY]
    with proxied.connect() as sock:  # and cannot pass for another
        sock.sendall(v1() + HEALTH)
        assert b" 405 " in harness.read_to_end(sock)


def test_a_header_that_does_not_come_is_waited_for_as_long_as_for_a_request(make_server):
    server = make_shared_proxied(make_server, handshake_timeout="300ms")
    with from_proxy(server) as sock:
        sock.sendall(b"PROXY TCP4 ")
        assert harness.read_to_end(sock) == b""
    assert counted(server, "handshake_timeouts") == 1


def test_the_limit_of_an_address_holds_behind_the_header(make_server, user):
    server = make_shared_proxied(make_server, max_connections_per_address="2")
    with attached(server, user, before=v1(), sock=from_proxy(server)), \
            attached(server, user, before=v2(), sock=from_proxy(server)):
        with from_proxy(server) as sock:
            sock.sendall(v1() + HEALTH)
            assert b" 429 " in harness.read_to_end(sock)
        for n in range(2):  # one customer of IPv6 has a /64
            sock = from_proxy(server)
            with attached(server, user, before=v2("2001:db8:0:%d::1" % n), sock=sock):
                pass
        inside = [v2("2001:db8:0:9:%x::1" % n) for n in range(3)]
        with attached(server, user, before=inside[0], sock=from_proxy(server)), \
                attached(server, user, before=inside[1], sock=from_proxy(server)), \
                from_proxy(server) as sock:
            sock.sendall(inside[2] + HEALTH)
            assert b" 429 " in harness.read_to_end(sock)
        assert counted(server, "address_limit_refusals") == 2
        server.signal(harness.signal.SIGHUP)
        server.wait_status(lambda s: s["generation"] == 2 and all(
            w["generation"] == 2 for w in s["workers"]), "handed over")
        assert addresses(server, user) == [CLIENT] * 2
        with from_proxy(server) as sock:
            sock.sendall(v1() + HEALTH)
            assert b" 429 " in harness.read_to_end(sock)


def test_behind_a_header_a_proxy_in_front_of_that_one_may_be_believed_too(make_server, user):
    server = make_server(trusted_proxies="127.0.0.2, 192.0.2.0/24", proxy_protocol="on")
    with attached(server, user, forwarded(CLIENT), before=v1("192.0.2.5"),
                  sock=from_proxy(server)):
        assert addresses(server, user) == [CLIENT]


async def test_with_tls_the_header_comes_first(make_server, user, tmp_path):
    certificate, key = harness.make_certificate(str(tmp_path))
    server = make_shared_proxied(make_server, tls_certificate=certificate, tls_key=key,
                                 healthy=False)
    sock = from_proxy(server)
    sock.sendall(v2())
    with harness.trusting(certificate).wrap_socket(sock, server_hostname="localhost") as tls:
        with attached(server, user, sock=tls) as c:
            assert c.status == 101
            assert addresses(server, user) == [CLIENT]
    with from_proxy(server) as plain, pytest.raises((ssl.SSLError, ConnectionError)):
        harness.trusting(certificate).wrap_socket(plain, server_hostname="localhost")


# ---- the options --------------------------------------------------------------------------------


@pytest.mark.parametrize("options, complaint", [
    ({"proxy_protocol": "on"}, "proxy-protocol: trusted-proxies is needed"),
    ({"trusted_proxies": "10.0.0.1/8"}, "trusted-proxies: .*beyond"),
    ({"trusted_proxies": "proxy.example"}, "trusted-proxies: .*not an address")])
def test_bad_options_are_named(redis, options, complaint):
    server = harness.Belfry(redis, start=False, **options)
    try:
        got = subprocess.run([*server.program, "--config", server.config, "--test-config"],
                             capture_output=True, text=True, check=False, timeout=20)
        assert got.returncode == 1 and re.search(complaint, got.stdout + got.stderr)
    finally:
        server.end()


async def test_auth_frames_of_an_address_that_guesses_are_not_verified(make_server, user):
    server = make_server(auth_failure_rate="3", workers="1", auth_failure="http",
                         metrics_listen="127.0.0.1:0")
    for _ in range(3):
        with pytest.raises(Refused) as refused:
            await Client.open(server, token_text="guess")
        assert refused.value.status == 401
    with pytest.raises(Refused) as refused:
        await Client.open(server, user)  # not even a good one
    assert refused.value.status == 429 and refused.value.headers["Retry-After"]
    c = await Client.open(server)
    await c.send({"type": "auth", "payload": {"token": token(user)}})
    assert await c.closed() == (1008, "rate limit")
    answer = harness.ask_once(server.address(), "GET", "/ws/stats",
                              headers={"Authorization": "Bearer " + token(user, admin=True)})
    harness.assert_error(answer, 429, "RATE_LIMIT_EXCEEDED")
    assert b"belfry_instance_auth_rate_refusals_total 3" in server.metrics().body
