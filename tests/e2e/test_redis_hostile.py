"""What Redis holds or says that it should not: large, of the wrong type, malformed, without end."""

import contextlib
import json
import resource
import socket
import threading
import time

import pytest

import harness
from harness import Client, RawClient, message, produce, publish, store, token, unique


def counters(server, group):
    return server.stats()["statistics"][group]


def kilobytes(server):
    total = 0
    for pid in server.worker_pids():
        with open("/proc/%d/statm" % pid, encoding="ascii") as f:
            _, resident, shared = f.read().split()[:3]
        total += (int(resident) - int(shared)) * resource.getpagesize() // 1024
    return total


def pad(size, **payload):
    return dict(payload, pad="x" * size)


def key(user):
    return "notifications:" + user


# ---- a real Redis -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bounded(make_shared):
    return make_shared(workers="1", max_payload_size="1M", max_reading_size="2M",
                       send_buffer_limit="16M", replay_limit="100", redis_command_timeout="5s")


def test_a_list_of_fifteen_megabytes_does_not_hold_the_worker(redis, make_server, user):
    # Looked through in one turn it takes 100 ms and more; how long each of many turns takes is the
    # machine's business as well.
    server = make_server(workers="1")
    body = message(payload={"pad": [[]] * 50000})
    for n in range(105):
        redis.client.lpush(key(user), json.dumps(dict(body, id="m%d" % n), separators=(",", ":")))
    before = server.stats()["workers"][0]["process"]["turn_bound_hits"]
    with RawClient(server, "token=" + token(user)) as c:
        assert c.receive_json()["sync"]["unread"] == 100
        assert [c.receive_json()["id"] for _ in range(20)] == ["m%d" % n for n in range(85, 105)]
    assert server.stats()["workers"][0]["process"]["turn_bound_hits"] - before >= 5


async def test_of_a_giant_list_the_newest_are_read(redis, bounded, user):
    before = counters(bounded, "messages")
    links = counters(bounded, "redis_stats")["redis_disconnects"]
    bodies = [message(user=user, payload=pad(300000, n=n)) for n in range(90)]
    store(redis, user, *bodies)
    c = await Client.attach(bounded, user)
    got = [await c.next() for _ in range(c.sync["sync"]["missed"])]
    assert [m["payload"]["n"] for m in got] == list(range(90 - len(got), 90))
    assert 4 <= len(got) <= 6
    await c.nothing()
    produce(redis, user, one := message(user=user))  # and live goes on
    assert (await c.next())["id"] == one["id"]
    await c.close()
    # A position beyond what is read is not known any more; one within is.
    c = await Client.attach(bounded, user, query={"last_id": bodies[3]["id"]})
    assert c.sync["sync"]["recovered"] is False
    await c.close()
    c = await Client.attach(bounded, user, query={"last_id": bodies[88]["id"]})
    assert c.sync["sync"]["recovered"] is True
    assert [(await c.next())["id"] for _ in range(2)] == [bodies[89]["id"], one["id"]]
    await c.close()
    after = counters(bounded, "messages")
    assert after["readings_cut"] >= before["readings_cut"] + 3
    assert counters(bounded, "redis_stats")["redis_disconnects"] == links
    redis.client.delete(key(user))


async def test_entries_that_are_too_large_are_passed_over(redis, bounded, user):
    before = counters(bounded, "messages")["stored_too_big"]
    small = [message(user=user, payload={"n": n}) for n in range(4)]
    big = message(user=user, payload=pad(1500000))
    store(redis, user, small[0], big, small[1], small[2], big, small[3])
    async with await Client.attach(bounded, user) as c:
        assert [(await c.next())["id"] for _ in range(4)] == [m["id"] for m in small]
        await c.nothing()
    assert counters(bounded, "messages")["stored_too_big"] == before + 2
    redis.client.set("ws:snapshot:" + user, json.dumps(pad(3000000)))
    async with await Client.attach(bounded, user) as c:
        assert c.sync["payload"] == {}
    assert counters(bounded, "messages")["stored_too_big"] == before + 5
    redis.client.delete(key(user), "ws:snapshot:" + user)


async def test_a_long_list_of_small_entries_is_read_as_ever(redis, bounded, user):
    """Nobody trimmed it: most of it is none of a reading's business."""
    bodies = [json.dumps(message(user=user, payload=pad(500, n=n))) for n in range(10000)]
    redis.client.lpush(key(user), *bodies)
    async with await Client.attach(bounded, user) as c:
        got = [await c.next() for _ in range(100)]
        assert [m["payload"]["n"] for m in got] == list(range(9900, 10000))
        await c.nothing()
    redis.client.delete(key(user))


@pytest.mark.parametrize("spoil", [
    lambda r, k: r.set(k, "x" * 5000000), lambda r, k: r.hset(k, mapping={"a": "b" * 5000000}),
    lambda r, k: r.set(k, "text"), lambda r, k: r.zadd(k, {"x": 1}),
    lambda r, k: r.rpush(k, "", "\0", "[]", "x" * 1000, b"\xff\xfe", "{")],
    ids=["large string", "large hash", "string", "sorted set", "nonsense"])
async def test_a_list_that_is_none_counts_as_empty(redis, bounded, user, spoil):
    spoil(redis.client, key(user))
    async with await Client.attach(bounded, user) as c:
        assert c.sync["sync"]["missed"] == 0
        publish(redis, user, one := message(user=user))
        assert (await c.next())["id"] == one["id"]
    redis.client.delete(key(user))


async def test_messages_that_are_too_large_are_passed_over(make_redis, make_server, user):
    # By default Redis itself ends a subscriber for whom 32 MB wait.
    redis = make_redis(arguments=["--client-output-buffer-limit", "pubsub 0 0 0"])
    bounded = make_server(redis, workers="1", max_payload_size="1M", send_buffer_limit="16M",
                          redis_probe_interval="5s")
    before, links = counters(bounded, "messages"), counters(bounded, "redis_stats")
    one = message(user=user)
    async with await Client.attach(bounded, user) as c:
        memory = kilobytes(bounded)
        for size in (1048577, 3000000, 100 << 20):
            redis.client.publish("ws:user:" + user, "x" * size)
            redis.client.publish("ws:broadcast", "x" * size)
        publish(redis, user, one)
        assert (await c.next())["id"] == one["id"]
        if not harness.is_sanitized():
            assert kilobytes(bounded) - memory < 20 << 10
        at_most = message(user=user, payload=pad(1048576 - 400))
        publish(redis, user, at_most)
        assert (await c.next())["id"] == at_most["id"]
    assert counters(bounded, "messages")["messages_too_big"] == before["messages_too_big"] + 6
    after = counters(bounded, "redis_stats")
    assert after["redis_disconnects"] == links["redis_disconnects"]
    bounded.wait_log("message-too-big .*bytes=104857600")


async def test_where_scripts_are_not_allowed_lists_are_read_as_they_are(make_redis, make_server,
                                                                        user):
    redis = make_redis()
    redis.client.acl_setuser("default", enabled=True, categories=["+@all"],
                             commands=["-memory", "-watch"], keys=["*"], channels=["*"],
                             nopass=True)
    server = make_server(redis)
    produce(redis, user, one := message(user=user))
    async with await Client.attach(server, user) as c:
        assert (await c.next())["id"] == one["id"]
    server.wait_log("readings-unguarded")


# ---- no Redis at all ----------------------------------------------------------------------------


class Liar:
    """Speaks something like RESP: before, after or instead of set-up it says what it was told."""

    WHEN = ("connect", "setup", "command")

    def __init__(self, say):
        self.say, self.peers, self.told = say, 0, set()
        self.directory = harness.make_directory()
        self.path = self.directory + "/redis.sock"
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(self.path)
        harness.os.chmod(self.path, 0o777)
        self.socket.listen(64)
        self.is_over = False
        self.url = "unix://" + self.path
        threading.Thread(target=self._accept, daemon=True).start()

    def is_running(self):
        return False  # no client of redis-py can ask

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self.socket.accept()
                when = self.WHEN[self.peers // 2 % 3]  # the two links after one another
                self.peers += 1
                threading.Thread(target=self._serve, args=(peer, when), daemon=True).start()

    def _serve(self, peer, when):
        with contextlib.suppress(OSError), peer:
            if when == "connect":
                self._lie(peer, when)
            data = b""
            while True:
                piece = peer.recv(65536)
                if not piece:
                    return
                data += piece
                if b"PING" in data:
                    break
            peer.sendall(b"+OK\r\n+PONG\r\n")
            if when == "command":
                peer.recv(65536)
            self._lie(peer, when)

    def _lie(self, peer, when):
        self.told.add(when)
        for piece in self.say():
            peer.sendall(piece)
            if self.is_over:
                return
        while peer.recv(65536):
            pass

    def end(self):
        self.is_over = True
        self.socket.close()
        harness.remove_directory(self.directory)


def endless(begin, piece, end_mb=200):
    def say():
        yield begin
        block = piece * (1 + 65536 // len(piece))
        for _ in range((end_mb << 20) // len(block)):
            yield block
    return say


LIES = {
    "garbage": lambda: [bytes(range(256)) * 100],
    "large claim": lambda: [b"*2147483647\r\n"],
    "larger claim": lambda: [b"*9223372036854775807\r\n"],
    "large bulk claim": lambda: [b"$536870912\r\nx"],
    "negative": lambda: [b"*-5\r\n$-7\r\n"],
    "endless bulk": endless(b"$536870912\r\n", b"x"),
    "endless line": endless(b"+", b"x"),
    "endless array": endless(b"*1000000000\r\n", b":1\r\n"),
    "endless strings": endless(b"*190000\r\n", b"$2000\r\n" + b"x" * 2000 + b"\r\n"),
    "endless nothing": endless(b"", b"*0\r\n"),
    "nested": lambda: [b"*1\r\n" * 100],
    "nested claims": lambda: [b"*150000\r\n" * 7],
    "push of RESP3": lambda: [b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n"] * 100,
    "giant channel": endless(b"*3\r\n$7\r\nmessage\r\n$536870912\r\n", b"x"),
    "giant message": endless(b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$9999999999\r\n", b"x"),
    "LOADING": lambda: [b"-LOADING Redis is loading\r\n"] * 100,
    "OOM": lambda: [b"-OOM command not allowed\r\n"] * 100,
    "READONLY": lambda: [b"-READONLY You can't write\r\n"] * 100,
    "MOVED": lambda: [b"-MOVED 1 10.0.0.1:6379\r\n"] * 100,
    "NOAUTH": lambda: [b"-NOAUTH Authentication required\r\n"] * 100,
    "half a push": lambda: [b"*3\r\n$7\r\nmess"],
}


@pytest.mark.parametrize("name", LIES)
def test_a_server_that_is_no_redis_harms_nobody(make_server, name):
    liar = Liar(LIES[name])
    try:
        server = make_server(liar, workers="1", redis_connect_timeout="200ms",
                             redis_command_timeout="200ms", redis_probe_interval="100ms",
                             max_payload_size="1M", max_reading_size="1M")
        pids = server.worker_pids()
        most = 0
        with contextlib.closing(RawClient(server, "token=" + token(unique())).sock):
            left = harness.deadline(20)
            while len(liar.told) < 3 and left() > 0:
                assert server.http("GET", "/ws/health?live").status == 200
                most = max(most, kilobytes(server))
                time.sleep(0.01)
            assert len(liar.told) == 3
            time.sleep(0.1)  # for the last to be heard
            assert server.http("GET", "/ws/health?live").status == 200
            most = max(most, kilobytes(server))
            if not harness.is_sanitized():
                assert most < 120 << 10
        assert server.worker_pids() == pids
    finally:
        liar.end()
