"""Why connections end: the close table and the limits behind it (contract: GET /ws)."""

import asyncio
import json
import re
import signal
import socket
import struct
import time

import pytest

import harness
from harness import Client, RawClient, Refused, message, produce, publish, token, unique

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def raw(server, user, **how):
    c = RawClient(server, "token=" + token(user), **how)
    assert c.receive_json()["type"] == "FULL_SYNC"
    return c


def closes(server):
    return server.stats()["statistics"]["closes"]


def closed_more(server, name, before):
    """Waits until the counter of a close reason grew."""
    harness.eventually(lambda: closes(server)["closed_" + name] > before["closed_" + name],
                       "closed_%s grows" % name)


# ---- 1002, 1003, 1007, 1009: what a client must not send ----------------------------------------


@pytest.mark.parametrize("name, sent", [
    ("unmasked", RawClient.frame(TEXT, "ping", masked=False)),
    ("reserved bit", RawClient.frame(TEXT, "ping", rsv=4)),
    ("reserved bits", RawClient.frame(TEXT, "ping", rsv=3)),
    ("unknown data opcode", RawClient.frame(3, "x")),
    ("unknown control opcode", RawClient.frame(11, "x")),
    ("fragmented ping", RawClient.frame(PING, "x", fin=False)),
    ("long ping", RawClient.frame(PING, "x" * 126)),
    ("continuation of nothing", RawClient.frame(0, "x")),
    ("text within a message", RawClient.frame(TEXT, "a", fin=False) + RawClient.frame(TEXT, "b")),
    ("close with half a code", RawClient.frame(CLOSE, b"\x03")),
    ("close with code 999", RawClient.frame(CLOSE, struct.pack(">H", 999))),
    ("close with code 1005", RawClient.frame(CLOSE, struct.pack(">H", 1005))),
    ("close with code 5000", RawClient.frame(CLOSE, struct.pack(">H", 5000))),
    ("a length of 2^63", b"\x81\xff" + b"\xff" * 8 + b"mask"),
])
def test_1002_for_breaking_the_protocol(server, user, name, sent):
    before = closes(server)
    with raw(server, user) as c:
        c.sock.sendall(sent)
        code, reason = c.close_code()
        if name == "a length of 2^63":
            assert code in (1002, 1009)
        else:
            assert (code, reason) == (1002, "protocol error"), name
            closed_more(server, "protocol", before)
        c.send(CLOSE, struct.pack(">H", code))
        assert c.is_ended()


def test_1003_for_binary(server, user):
    before = closes(server)
    with raw(server, user) as c:
        c.send(BINARY, b"\0\1")
        assert c.close_code() == (1003, "binary not accepted")
    closed_more(server, "binary", before)


@pytest.mark.parametrize("frames", [
    [(TEXT, b"\xff", True)],
    [(TEXT, b"a\xed\xa0\x80", True)],
    [(TEXT, b"\xc3", True)],
    [(TEXT, b"\xf4\x90\x80\x80", True)],
    [(TEXT, "{\"a\":\"é".encode()[:-1], False), (0, b"x", True)],
    [(CLOSE, struct.pack(">H", 1000) + b"\xff", True)],
])
def test_1007_for_text_that_is_not_utf8(server, user, frames):
    before = closes(server)
    with raw(server, user) as c:
        for opcode, payload, fin in frames:
            c.send(opcode, payload, fin=fin)
        assert c.close_code() == (1007, "invalid UTF-8")
    closed_more(server, "utf8", before)


def test_utf8_may_be_split_between_fragments(server, user):
    with raw(server, user) as c:
        text = '{"type":"ping","payload":{"client_time":"é€😀"}}'.encode()
        for i, byte in enumerate(text):
            c.send(TEXT if i == 0 else 0, bytes([byte]), fin=i == len(text) - 1)
        assert c.receive_json()["payload"]["client_time"] == "é€😀"


@pytest.mark.parametrize("how", ["whole", "claimed", "fragments"])
def test_1009_for_more_than_max_message_size(server, user, how):
    before = closes(server)
    limit = 65536
    with raw(server, user) as c:
        if how == "whole":
            c.send(TEXT, "x" * (limit + 1))
        elif how == "claimed":
            c.send(TEXT, "x" * 10, claim=1 << 40)
        else:
            for i in range(3):
                c.send(TEXT if i == 0 else 0, "x" * (limit // 2), fin=False)
        assert c.close_code() == (1009, "message too big")
    closed_more(server, "too_big", before)


def test_a_message_of_just_max_message_size_passes(server, user):
    with raw(server, user) as c:
        body = '{"type":"ping","payload":{"client_time":"%s"}}'
        c.send(TEXT, body % ("x" * (65536 - len(body) + 2)))
        assert len(c.receive_json()["payload"]["client_time"]) > 65000


# ---- 1008 ---------------------------------------------------------------------------------------


async def test_1008_for_more_than_client_message_rate(make_server, user):
    server = make_server(client_message_rate="20")
    async with await Client.attach(server, user) as steady:
        for _ in range(10):
            assert (await steady.command("ping"))["type"] == "pong"
        with raw(server, user) as c:
            c.sock.sendall(RawClient.frame(TEXT, "ping") * 100)  # at once, however busy we are
            assert c.close_code() == (1008, "rate limit")
        await steady.nothing()
    assert closes(server)["closed_rate"] == 1


# ---- 1011 ---------------------------------------------------------------------------------------


def test_1011_for_a_connection_that_the_server_has_no_memory_for(make_server, user):
    server = make_server(workers="1", max_message_size="32M")
    with open("/proc/%d/status" % server.worker_pids()[0], encoding="ascii") as f:
        size_kb = int(re.search(r"^VmSize:\s+(\d+) kB", f.read(), re.M).group(1))
    server.stop()
    if size_kb > 1 << 30:
        pytest.skip("AddressSanitizer reserves more memory than there is")
    server.spawn(["sh", "-c", "ulimit -v %d && exec \"$@\"" % (size_kb + 16384), "sh",
                  harness.BELFRYD, "--config", server.config], env=server.environment())
    server.wait_ready()
    pids = server.worker_pids()
    with raw(server, user) as c:
        try:
            c.send(TEXT, "x" * (30 << 20))
        except ConnectionError:
            pass
        assert c.close_code() == (1011, "internal error")
    with raw(server, user) as c:  # others are served, now as before
        c.send(TEXT, "ping")
        assert c.receive() == (TEXT, b"pong")
    assert server.worker_pids() == pids


# ---- 1001, 1012, drop ---------------------------------------------------------------------------


async def test_1001_when_the_server_stops(make_server, user):
    server = make_server()
    clients = [await Client.attach(server, user) for _ in range(4)]
    waiting = await Client.open(server)  # still without its auth frame
    server.signal(signal.SIGTERM)
    for c in clients + [waiting]:
        assert await c.closed() == (1001, "server shutting down")
    assert server.wait() == 0


@pytest.mark.parametrize("profile, outcome, reason", [
    ("standard", (1012, "restarting"), "restart"),
    ("finance-tracker", (1006, ""), "dropped")])
async def test_tls_connections_end_when_workers_are_replaced(
        make_server, user, tmp_path, profile, outcome, reason):
    """All others stay: test_handover.py."""
    certificate, key = harness.make_certificate(str(tmp_path))
    server = make_server(drain_time="0s", profile=profile, healthy=False,
                         tls_certificate=certificate, tls_key=key, metrics_listen="127.0.0.1:0")
    tls = harness.trusting(certificate)
    clients = []
    for _ in range(4):
        clients.append(await Client.open(server, user, tls=tls))
        assert (await clients[-1].next())["type"].upper() == "FULL_SYNC"
    server.signal(signal.SIGHUP)
    for c in clients:
        assert await c.closed() == outcome
    wanted = "belfry_instance_closes_total{reason=\"%s\"" % reason

    def is_counted():
        return any(line.startswith(wanted) and line.endswith(" 4")
                   for line in server.metrics().text.splitlines())

    await harness.eventually_async(is_counted, "counted")


# ---- 4001, 4002 (more of them in test_tokens.py) ------------------------------------------------


async def test_4001_is_counted(server):
    before = closes(server)
    failures = server.stats()["statistics"]["connections"]["auth_failures"]
    c = await Client.open(server, token_text="nonsense")
    assert await c.closed() == (4001, "authentication failed")
    closed_more(server, "auth", before)
    assert server.stats()["statistics"]["connections"]["auth_failures"] == failures + 1


async def test_4002_is_counted(make_server, user):
    server = make_server(jwt_leeway="0s")
    c = await Client.attach(server, token_text=token(user, exp=int(time.time()) + 3))
    assert await c.closed() == (4002, "token expired")
    await harness.eventually_async(lambda: closes(server)["closed_expired"] == 1, "counted")


# ---- 4008 and conflation ------------------------------------------------------------------------


def fill(redis, user, count, size, kind="NOTIFICATION", **payload):
    """Messages until far more waits than kernel and server may hold; returns the last one."""
    pad = "x" * size
    for n in range(count):
        one = message(kind, user=user, payload=dict(payload, n=n, pad=pad))
        publish(redis, user, one)
    return one


def test_4008_for_a_client_that_reads_too_slowly(redis, make_server, user):
    server = make_server(slow_consumer="disconnect", send_buffer_limit="64k", workers="1",
                         redis_probe_interval="5s")
    with raw(server, user, receive_buffer=4096) as c:
        fill(redis, user, 200, 60000)
        harness.eventually(lambda: closes(server)["closed_slow"] == 1, "closed as slow")
        assert c.close_code() in ((4008, "too slow"), (1006, ""))
    assert server.health().status == 200


def test_a_slow_client_gets_the_newest_of_each_key(redis, make_server, user):
    server = make_server(send_buffer_limit="64k", workers="1", redis_probe_interval="5s")
    accounts = ("a", "b", "c")
    with raw(server, user, receive_buffer=4096) as c:
        pad = "x" * 12000  # three of them fit, many more than the kernel takes come
        for n in range(500):
            for account in accounts:
                publish(redis, user, message("BALANCE_UPDATE", user=user, payload={
                    "account_id": account, "n": n, "pad": pad}))
        newest = {}
        while set(newest.values()) != {499} or set(newest) != set(accounts):
            payload = c.receive_json()["payload"]
            assert payload["n"] > newest.get(payload["account_id"], -1), "out of order"
            newest[payload["account_id"]] = payload["n"]
        c.send(TEXT, "ping")
        assert c.receive()[1] == b"pong"
    assert server.stats()["statistics"]["messages"]["messages_conflated"] > 0


# ---- 4029, max-connections, max-connections-per-address -----------------------------------------


async def test_4029_above_max_connections_per_user_over_all_workers(make_server, user):
    server = make_server(max_connections_per_user="3")
    kept = [await Client.attach(server, user) for _ in range(3)]
    for _ in range(6):  # both workers refuse
        c = await Client.open(server, user)
        assert await c.closed() == (4029, "too many connections of this user")
    late = await Client.open(server)
    await late.send({"type": "auth", "payload": {"token": token(user)}})
    assert await late.closed() == (4029, "too many connections of this user")
    async with await Client.attach(server, unique()):
        pass
    await kept.pop().close()
    await harness.eventually_async(
        lambda: server.health().json["total_connections"] == 2, "one left")
    async with await Client.attach(server, user) as again:
        await again.nothing()
    for c in kept:
        await c.nothing()
        await c.close()
    assert closes(server)["closed_user_limit"] == 7


async def test_max_connections_counts_websockets_over_all_workers(make_server, user):
    server = make_server(max_connections="4")
    kept = [await Client.attach(server, user) for _ in range(4)]
    idle = [server.connect() for _ in range(8)]  # HTTP does not count
    for _ in range(6):
        with pytest.raises(Refused) as refused:
            await Client.open(server, user)
        assert refused.value.status == 503
        assert refused.value.headers["Retry-After"]
    assert server.stats()["statistics"]["connections"]["connection_limit_refusals"] == 6
    for sock in idle:
        sock.close()
    for c in kept:
        await c.nothing()
        await c.close()


def test_max_connections_per_address_refuses_before_a_byte_is_read(make_server):
    server = make_server(max_connections_per_address="5")
    # The harness itself asks from this address, one connection at a time.
    kept = []
    try:
        # The harness's last connection may not have ended yet for the server.
        while len(kept) < 5:
            kept.append(harness.eventually(lambda: _let_in(server), "let in"))
        with server.connect() as more:
            try:
                more.sendall(b"GET /ws/health?live HTTP/1.1\r\nHost: x\r\n\r\n")
            except (BrokenPipeError, ConnectionResetError):
                pass
            assert b"HTTP/1.1 200" not in harness.read_to_end(more)
    finally:
        for sock in kept:
            sock.close()
    harness.eventually(lambda: _answers(server), "room again")
    assert server.stats()["statistics"]["connections"]["address_limit_refusals"] >= 1


def _let_in(server):
    sock = server.connect()
    try:
        sock.sendall(b"GET /ws/health?live HTTP/1.1\r\nHost: x\r\n\r\n")
        if harness.read_answer(sock).status == 200:
            return sock
    except OSError:
        pass
    sock.close()
    return None


def _answers(server):
    try:
        return server.health().status == 200
    except (OSError, harness.http.client.HTTPException):
        return False


# ---- no code: pong, lost, client ----------------------------------------------------------------


@pytest.fixture(scope="module")
def nervous(make_shared):
    return make_shared(ping_interval="300ms", pong_timeout="400ms")


def test_a_client_that_does_not_answer_pings_loses_tcp(nervous, user):
    before = closes(nervous)
    with raw(nervous, user) as c:
        opcode, _ = c.receive()
        assert opcode == PING
        assert c.close_code() == (1006, "")
    closed_more(nervous, "no_pong", before)


async def test_a_client_that_answers_pings_stays(make_server, user):
    server = make_server(ping_interval="300ms", pong_timeout="2s")
    async with await Client.attach(server, user) as c:
        await c.nothing(3)  # longer than both
    assert server.stats()["statistics"]["client"]["pings_sent"] >= 2


async def test_the_ends_that_are_the_clients_own_are_told_apart(server, user):
    before = closes(server)
    c = await Client.attach(server, user)
    await c.close()
    closed_more(server, "client", before)
    c = await Client.attach(server, user)
    await c.vanish()
    closed_more(server, "lost", before)


def test_a_client_that_never_answers_a_close_is_left_after_a_while(server, user):
    with raw(server, user) as c:
        c.send(BINARY, b"x")
        assert c.close_code()[0] == 1003
        with harness.Stopwatch() as watch:
            assert c.is_ended()
            assert watch.is_within(15), watch


def test_a_flood_of_pings_is_answered_or_ended_but_never_kept(server, user):
    with raw(server, user, receive_buffer=4096) as c:
        flood = RawClient.frame(PING, b"x" * 100) * 1000
        c.sock.settimeout(1)
        try:
            for _ in range(300):  # 30 MB of pongs that nobody reads
                c.sock.sendall(flood)
        except (socket.timeout, ConnectionError):
            pass
    assert server.health().status == 200


# ---- bounds in all of this ----------------------------------------------------------------------


async def test_a_user_with_many_devices_gets_each_message_on_each(redis, make_server, user):
    server = make_server(max_connections_per_user="unlimited")
    devices = await asyncio.gather(*[Client.attach(server, user) for _ in range(60)])
    produce(redis, user, one := message(user=user))
    for c in devices:
        assert (await c.next())["id"] == one["id"]
    await asyncio.gather(*[c.close() for c in devices])


async def test_a_crowd_of_clients_comes_and_goes(redis, server):
    async def visit(n):
        who = unique("crowd%d" % n)
        async with await Client.attach(server, who) as c:
            one = message(user=who)
            redis.client.publish("ws:user:" + who, json.dumps(one))
            assert (await c.next())["id"] == one["id"]

    for _ in range(5):
        await asyncio.gather(*[visit(n) for n in range(60)])
    await harness.eventually_async(
        lambda: server.health().json["total_connections"] == 0, "all gone")
    assert server.health().json["connected_users"] == 0
