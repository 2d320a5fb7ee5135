"""What clients do that mean harm: whatever it is, memory is bounded and health answers."""

import asyncio
import contextlib
import resource
import socket
import struct
import time

import pytest

import harness
from harness import Client, RawClient, Refused, message, publish, token, unique
from waiting import eventually

TEXT, PING, CLOSE = 1, 9, 8
HEALTH = b"GET /ws/health?live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module", autouse=True)
def descriptors():
    """A crowd needs many here, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def statistics(server, group):
    return server.stats()["statistics"][group]


def kilobytes(pid):
    """Memory that is the worker's own."""
    with open("/proc/%d/statm" % pid, encoding="ascii") as f:
        _, resident, shared = f.read().split()[:3]
    return (int(resident) - int(shared)) * resource.getpagesize() // 1024


def all_kilobytes(server):
    return sum(kilobytes(pid) for pid in server.worker_pids())


def process_fields(pid):
    with open("/proc/%d/stat" % pid, encoding="ascii") as f:
        return f.read().rsplit(")", 1)[1].split()


def cpu_seconds(pid):
    fields = process_fields(pid)
    return (int(fields[11]) + int(fields[12])) / 100


def wait_for_rest(pid):
    """Until the process has nothing more to do."""
    def rests():
        spent = cpu_seconds(pid)
        time.sleep(0.05)  # several ticks of its clock
        return process_fields(pid)[0] == "S" and cpu_seconds(pid) == spent

    eventually(rests, "a process at rest")


def raw(server, user, **how):
    c = RawClient(server, "token=" + token(user), **how)
    assert c.receive_json()["type"] == "FULL_SYNC"
    return c


def limited(server, descriptors, more=""):
    """The same server again, its processes with so few descriptors."""
    server.stop()
    server.spawn(["sh", "-c", "ulimit -n %d; %s exec \"$@\"" % (descriptors, more), "sh",
                  harness.BELFRYD, "--config", server.config], env=server.environment())
    server.wait_ready()


# ---- slow and many ------------------------------------------------------------------------------


def drip(sock, data, every=0.05):
    """Byte by byte until the other side has enough; seconds it took."""
    began = time.monotonic()
    with contextlib.suppress(ConnectionError):
        for at in range(len(data)):
            sock.sendall(data[at:at + 1])
            sock.settimeout(every)
            try:
                if not sock.recv(4096):
                    break
            except (socket.timeout, TimeoutError):
                pass
    return time.monotonic() - began


@pytest.mark.parametrize("first, slowly", [
    (b"", b"GET /ws/health HTTP/1.1\r\nHost: " + b"x" * 200),
    (b"GET /ws/health HTTP/1.1\r\nHost: x\r\n", b"Cookie: " + b"x" * 200),
    (b"POST /ws/broadcast HTTP/1.1\r\nHost: x\r\nContent-Length: 200\r\n\r\n", b"x" * 200),
    (b"POST /ws/broadcast HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
     b"1\r\nx\r\n" * 40)], ids=["line", "header", "body", "chunks"])
def test_who_sends_a_request_slowly_is_left(make_server, first, slowly):
    server = make_server(handshake_timeout="400ms", workers="1")
    with server.connect() as sock:
        sock.sendall(first)
        assert drip(sock, slowly) < 5
    assert statistics(server, "connections")["handshake_timeouts"] == 1


def test_who_shakes_hands_slowly_is_left(make_server, tmp_path):
    certificate, key = harness.make_certificate(str(tmp_path))
    server = make_server(handshake_timeout="400ms", tls_certificate=certificate, tls_key=key,
                         metrics_listen="127.0.0.1:0", healthy=False)
    with server.connect() as sock, server.connect() as quiet:
        hello = b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + b"x" * 200
        assert drip(sock, hello) < 5
        assert harness.read_to_end(quiet) == b""
    assert b"belfry_instance_handshake_timeouts_total 2" in server.metrics().body


@pytest.mark.parametrize("request_, status", [
    (b"".join(b"X-%d: y\r\n" % n for n in range(200)), 431),
    (b"Cookie: a=b\r\n" * 5000, 431),
    (b"X: " + b"y" * 100000, 431),
    (b"\r\nGET /" + b"x" * 100000, 400)], ids=["names", "cookies", "value", "after the end"])
def test_heads_without_end_are_cut(server, request_, status):
    before = statistics(server, "http")["http_client_errors"]
    with server.connect() as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(b"GET /ws/health HTTP/1.1\r\nHost: x\r\n" + request_)
        got = harness.read_to_end(sock)
        assert not got or b" %d " % status in got or status == 400
    if status == 431:
        assert statistics(server, "http")["http_client_errors"] > before


def test_max_header_size_holds_to_the_byte(make_server):
    server = make_server(max_header_size="2k", workers="1")
    head = b"GET /ws/health?live HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n"
    room = 2048 - len(head) + 2
    for bytes_, status in ((room, 200), (room + 1, 431)):
        with server.connect() as sock:
            sock.sendall(head % (b"y" * bytes_))
            assert harness.read_answer(sock).status == status, bytes_
    assert statistics(server, "http")["http_client_errors"] == 1


def test_a_url_and_chunks_without_end_are_cut(server):
    with server.connect() as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(b"GET /ws?token=" + b"x" * 200000)
        assert b" 431 " in harness.read_to_end(sock)
    with server.connect() as sock:
        sock.sendall(b"POST /ws/broadcast HTTP/1.1\r\nHost: x\r\n"
                     b"Transfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(200):
                sock.sendall(b"400\r\n" + b"x" * 1024 + b"\r\n")
        assert b" 413 " in harness.read_to_end(sock)


def test_requests_without_end_wait_outside(make_server):
    """Pipelined, and no answer is read."""
    server = make_server(workers="1", send_buffer_limit="64M")
    before = all_kilobytes(server)
    with contextlib.ExitStack() as kept:
        for _ in range(20):
            sock = kept.enter_context(server.connect())
            sock.settimeout(0.05)
            with contextlib.suppress(socket.timeout, TimeoutError):
                while True:
                    sock.send(HEALTH * 500)
        assert server.health().status == 200
        if not harness.is_sanitized():
            assert all_kilobytes(server) - before < 20 * 200


def test_two_thousand_that_never_finish_a_request_keep_nobody_out(make_server):
    server = make_server(workers="2", handshake_timeout="60s")
    limited(server, 600)
    before = all_kilobytes(server)
    crowd = []
    try:
        for n in range(2000):
            crowd.append(sock := server.connect())
            with contextlib.suppress(ConnectionError):
                sock.sendall(b"GET /ws HTTP/1.1\r\nHost: x\r\nCookie: " + b"x" * 8000)
            if n % 400 == 399:
                assert server.health().status == 200
        assert statistics(server, "connections")["connections_reclaimed"] >= 700
        assert statistics(server, "connections")["connections"] <= 2 * 600
        if not harness.is_sanitized():
            assert all_kilobytes(server) - before < 40000
    finally:
        for sock in crowd:
            sock.close()


def test_ten_thousand_from_one_address(make_server):
    server = make_server(max_connections_per_address="20")
    crowd, refused = [], 0
    for _ in range(25):
        batch = []
        for _ in range(400):
            batch.append(server.connect())
        for sock in batch:
            sock.setblocking(False)
            try:
                ended = bool(sock.recv(1))
            except BlockingIOError:
                ended = False
            except ConnectionError:
                ended = True
            refused += ended
            if not ended and len(crowd) < 20:
                crowd.append(sock)
            else:
                sock.close()
    for sock in crowd:
        sock.close()
    harness.eventually(lambda: _is_answered(server), "let in again")
    harness.eventually(  # over the control socket, which has no such limit
        lambda: server.status()["totals"]["connections"]["address_limit_refusals"] > 9000,
        "nearly all are counted")
    assert refused > 5000


def _is_answered(server):
    with contextlib.suppress(OSError, harness.http.client.HTTPException):
        return server.health().status == 200
    return False


# ---- no descriptor is left ----------------------------------------------------------------------


async def test_without_descriptors_others_than_websockets_are_served(redis, make_server, user):
    server = make_server(workers="1", max_connections_per_user="unlimited")
    limited(server, 160)
    kept = []
    while True:  # until the room that is theirs is taken
        try:
            kept.append(await Client.attach(server, user))
        except Refused as refused:
            assert refused.status == 503 and refused.headers["Retry-After"]
            break
    assert 80 <= len(kept) <= 96
    idle = [server.connect() for _ in range(200)]
    for _ in range(5):
        assert server.http("GET", "/ws/health?live").status == 200
    redis.client.client_kill_filter(_type="pubsub", skipme=True)
    redis.client.client_kill_filter(_type="normal", skipme=True)
    await harness.eventually_async(lambda: server.health().status == 200, "Redis found again")
    for c in kept:
        await c.nothing()
    assert statistics(server, "connections")["connections_reclaimed"] > 0
    for c in idle:
        c.close()
    for c in kept:
        await c.close()


def _is_served(sock):
    with contextlib.suppress(ConnectionError):
        sock.sendall(HEALTH)
        return sock.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 200"
    return False


def get_stuck(sock, pid):
    """Asks and takes no answer, until the server does not read, either."""
    sock.settimeout(0.05)
    is_stuck = False
    while not is_stuck:
        is_stuck = True
        with contextlib.suppress(TimeoutError):
            while sock.send(HEALTH * 1000):
                is_stuck = False
        wait_for_rest(pid)


def test_without_any_descriptor_one_is_told_and_nothing_spins(make_server, user):
    server = make_server(workers="1", max_connections_per_user="unlimited")
    limited(server, 100)
    pid = server.worker_pids()[0]
    with contextlib.ExitStack() as kept:
        stuck = [kept.enter_context(raw(server, user)) for _ in range(48)]
        while _is_served(sock := kept.enter_context(server.connect())):
            stuck.append(sock)
            assert len(stuck) < 100
            get_stuck(sock, pid)  # this one makes no room
        answer = harness.read_answer(kept.enter_context(server.connect()))
        assert answer.status == 503 and answer.headers["Retry-After"]
        waiting = [kept.enter_context(server.connect()) for _ in range(50)]
        spent = cpu_seconds(pid)
        time.sleep(1)  # what is measured is time
        assert cpu_seconds(pid) - spent < 0.2
        for one in stuck:
            getattr(one, "sock", one).close()
        waiting[-1].settimeout(harness.TIMEOUT)
        waiting[-1].sendall(HEALTH)
        assert harness.read_answer(waiting[-1]).status == 200
    assert statistics(server, "connections")["descriptor_refusals"] >= 1


# ---- memory -------------------------------------------------------------------------------------

needs_figures = pytest.mark.skipif(harness.is_sanitized(), reason="the sanitizer keeps memory")


def memory(server):
    return server.health().json["memory"]


@needs_figures
async def test_max_memory_refuses_before_it_sheds_and_ends_when_it_is_over(make_server, user):
    server = make_server(workers="1", max_memory="24M", max_message_size="16M")
    pid = server.worker_pids()[0]
    one = await Client.attach(server, user)
    hogs = []
    with contextlib.ExitStack() as kept:
        def hog(megabytes):  # a message without end
            hogs.append(c := kept.enter_context(raw(server, unique())))
            c.send(TEXT, b"x" * (megabytes << 20), fin=False)

        while memory(server)["status"] == "ok" and len(hogs) < 40:
            hog(2)
            await asyncio.sleep(0.15)
        assert memory(server)["status"] == "high" and server.health().status == 200
        with pytest.raises(Refused) as refused:
            await Client.open(server, user)
        assert refused.value.status == 503 and refused.value.headers["Retry-After"]
        assert statistics(server, "connections")["memory_refusals"] == 1
        assert statistics(server, "closes")["closed_overload"] == 0
        with contextlib.suppress(ConnectionError):
            for c in hogs:
                c.send(0, b"x" * (3 << 20), fin=False)
        await harness.eventually_async(
            lambda: statistics(server, "closes")["closed_overload"] > 0, "shed")
        assert any(_is_shed(c) for c in hogs)
        assert kilobytes(pid) < 36 << 10
    await harness.eventually_async(lambda: memory(server)["status"] == "ok", "over")
    async with await Client.attach(server, user) as again:
        await again.nothing()
    await one.nothing()
    await one.close()
    assert server.worker_pids() == [pid]


def _is_shed(c):
    c.sock.settimeout(0.05)
    with contextlib.suppress(socket.timeout, TimeoutError):
        return c.close_code() in ((1013, "overloaded"), (1006, ""))
    return False


@needs_figures
async def test_max_memory_closes_who_reads_slowest(redis, make_server, user):
    server = make_server(workers="1", max_memory="48M", send_buffer_limit="512M")
    one = await Client.attach(server, user)
    with raw(server, unique(), receive_buffer=4096) as few, \
            raw(server, slow := unique(), receive_buffer=4096):
        pad = {"pad": "x" * (1 << 20)}
        for _ in range(3):
            publish(redis, user, message(payload=pad))
            assert (await one.next())["payload"] == pad
        for _ in range(100):
            if statistics(server, "closes")["closed_overload"]:
                break
            publish(redis, slow, message(payload=pad))
        await harness.eventually_async(
            lambda: statistics(server, "closes")["closed_overload"] == 1, "shed")
        few.send(TEXT, "ping")
        assert few.receive() == (TEXT, b"pong")
    await one.nothing()
    await one.close()


# ---- a client that asks too much ----------------------------------------------------------------


@pytest.mark.parametrize("opcode", [PING, 10])
def test_1008_for_a_flood_of_control_frames(server, user, opcode):
    before = statistics(server, "closes")["closed_rate"]
    with raw(server, user) as c:
        with contextlib.suppress(ConnectionError):
            c.sock.sendall(RawClient.frame(opcode, b"") * 10000)
        assert c.close_code() in ((1008, "rate limit"), (1006, ""))
    harness.eventually(lambda: statistics(server, "closes")["closed_rate"] == before + 1,
                       "counted")


def test_1008_for_a_flood_of_tokens(server, user):
    frame = RawClient.frame(TEXT, '{"type":"auth","payload":{"token":"%s"}}' % token(user))
    with raw(server, user) as c:
        c.sock.sendall(frame * 10)
        for _ in range(10):
            assert c.receive_json()["type"] == "auth_ok"
        with contextlib.suppress(ConnectionError):
            c.sock.sendall(frame * 60)
        assert c.close_code() in ((1008, "rate limit"), (1006, ""))


def test_of_many_acks_the_last_is_kept_and_few_are_sent(redis, server, user):
    with raw(server, user) as c:
        before = statistics(server, "redis_stats")["redis_commands"]
        for start in range(0, 5000, 500):
            c.sock.sendall(b"".join(
                RawClient.frame(TEXT, '{"type":"ack","payload":{"last_id":"m%d"}}' % n)
                for n in range(start, start + 500)))
        c.send(TEXT, "ping")
        assert c.receive() == (TEXT, b"pong")
        harness.eventually(lambda: b"m4999" in _values(redis, user), "the last is kept")
        assert statistics(server, "redis_stats")["redis_commands"] - before < 1500


def _values(redis, user):
    return [redis.client.get(key) for key in redis.client.keys("*%s*" % user)
            if redis.client.type(key) == b"string"]


@pytest.mark.parametrize("body", [
    '{"type":"mark_notification_read","payload":{"notification_ids":["a"]}}',
    '{"type":"dashboard_refresh"}'])
def test_commands_that_ask_redis_too_much_are_refused(server, user, body):
    before = statistics(server, "client")["commands_refused"]
    with raw(server, user) as c:
        c.sock.sendall(RawClient.frame(TEXT, body) * 1000)
        c.send(TEXT, "ping")
        codes = []
        while True:
            opcode, payload = c.receive()
            if (opcode, payload) == (TEXT, b"pong"):
                break
            got = harness.json.loads(payload)
            if got["type"] == "error":
                codes.append(got["payload"]["code"])
        assert "RATE_LIMITED" in codes
    assert statistics(server, "client")["commands_refused"] - before >= 500
    with raw(server, user) as other:  # each device has its own share
        other.send(TEXT, body)
        assert other.receive_json()["type"] != "error"
