"""Hand-over: HUP moves live connections to new workers, and clients notice nothing (contract:
Processes and signals)."""

import asyncio
import collections
import json
import os
import signal
import threading
import time

import pytest
import redis as redis_client

import harness
from harness import Client, RawClient, broadcast, message, produce, publish, store, token, unique

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


# ---- what the tests say and see -----------------------------------------------------------------


def running(status):
    return [w for w in status["workers"] if w["state"] != "empty"]


def is_settled(server, generation):
    """The old workers are gone, the new ones serve."""
    def check(status):
        workers = running(status)
        return (status["generation"] > generation and workers
                and all(w["state"] == "ready" for w in workers))
    return check


def hup(server, **changes):
    """A reload, until the old workers have left."""
    before = server.status()["generation"]
    if changes:
        server.write_config(**changes)
    server.signal(signal.SIGHUP)
    return server.wait_status(is_settled(server, before), "the old workers have left")


async def hup_async(server, **changes):
    return await asyncio.to_thread(hup, server, **changes)


def spread(server):
    """Connections of each worker that is there."""
    return sorted(w["active_connections"] for w in server.stats()["workers"]
                  if w["state"] == "ready")


def closes(server):
    """Connections closed for any reason so far."""
    return sum(server.stats()["statistics"]["closes"].values())


def handover(server):
    connections = server.stats()["statistics"]["connections"]
    return {name: connections["handover_" + name] for name in ("given", "taken", "refused")}


class Device:
    """Reads all that comes and knows what was to come: each stream counts up by one."""

    def __init__(self, client, user):
        self.client = client
        self.user = user
        self.last = {}
        self.first = {}
        self.wrong = []
        self.closed = None
        self.task = asyncio.ensure_future(self.read())

    async def read(self):
        try:
            while True:
                body = json.loads(await self.client.ws.recv())
                payload = body.get("payload", {})
                if body["type"] == "FULL_SYNC":
                    self.wrong.append("FULL_SYNC")
                if "stream" in payload:
                    self.take(payload["stream"], payload["n"])
        except harness.websockets.exceptions.ConnectionClosed as e:
            self.closed = e.rcvd.code if e.rcvd else 1006

    def take(self, stream, n):
        if stream not in self.last:
            self.first[stream] = n
        elif n != self.last[stream] + 1:
            self.wrong.append((stream, self.last[stream], n))
        self.last[stream] = n

    def has(self, ends):
        return all(self.last.get(stream) == n for stream, n in ends.items())


class Producer(threading.Thread):
    """A plain backend: LPUSH, LTRIM, EXPIRE and PUBLISH one by one, and messages that it only
    publishes, with an id and without, to users and to everybody."""

    KINDS = ("stored", "published", "nameless", "all", "all-nameless")

    def __init__(self, redis, users, pause_s=0.0):
        super().__init__()
        self.redis = redis_client.Redis(unix_socket_path=redis.path)
        self.users = users
        self.pause_s = pause_s
        self.counts = collections.Counter()  # (user or None, kind)
        self.sent = 0
        self.is_over = threading.Event()
        self.error = None

    def one(self, user, kind):
        n = self.counts[user, kind]
        body = message(user=user, payload={"stream": kind, "n": n})
        if kind.endswith("nameless"):
            del body["id"]
        text = json.dumps(body)
        if kind == "stored":
            key = "notifications:" + user
            self.redis.lpush(key, text)
            self.redis.ltrim(key, 0, 99)
            self.redis.expire(key, 600)
        channel = "ws:user:" + user if user else "ws:broadcast"
        self.redis.publish(channel, text)
        self.counts[user, kind] += 1
        self.sent += 1

    def run(self):
        rounds = 0
        try:
            while not self.is_over.is_set():
                for user in self.users:
                    for kind in ("stored", "published", "nameless"):
                        self.one(user, kind)
                    if self.is_over.is_set():
                        break
                    if rounds % 3 == 0 and user is self.users[0]:
                        self.one(None, "all")
                        self.one(None, "all-nameless")
                    if self.pause_s:
                        time.sleep(self.pause_s)
                rounds += 1
        except Exception as e:  # pylint: disable=broad-except
            self.error = e

    def ends(self, user):
        """Number of the last message of each stream that this user's devices get."""
        return {kind: self.counts[who, kind] - 1 for who in (user, None) for kind in self.KINDS
                if self.counts[who, kind]}

    def stop(self):
        self.is_over.set()
        self.join()
        assert self.error is None, self.error


async def fleet(server, users, devices_each=1, **how):
    made = []
    for start in range(0, len(users), 25):
        made += await asyncio.gather(*[
            Client.attach(server, u, **how) for u in users[start:start + 25]
            for _ in range(devices_each)])
    owners = [u for u in users for _ in range(devices_each)]
    return [Device(c, u) for c, u in zip(made, owners)]


async def check_fleet(producer, devices):
    """Everybody has got everything once and in order, and is still there."""
    def all_there():
        return all(d.closed is not None or d.has(producer.ends(d.user)) for d in devices)
    try:
        await harness.eventually_async(all_there, "all messages came")
    except harness.Failure:
        late = [(d.user, d.last, producer.ends(d.user), d.wrong[:3]) for d in devices
                if not d.has(producer.ends(d.user))]
        raise harness.Failure("%d devices miss something: %s" % (len(late), late[:3])) from None
    assert [d.closed for d in devices if d.closed is not None] == []
    assert [(d.user, d.wrong[:4]) for d in devices if d.wrong] == []


async def disband(devices):
    for d in devices:
        d.task.cancel()
    await asyncio.gather(*[d.client.close() for d in devices])


def paused(server, user, query="", **how):
    """A device that has its FULL_SYNC and reads nothing more until it is told to."""
    c = RawClient(server, "token=" + token(user) + query, **how)
    assert c.receive_json()["type"] == "FULL_SYNC"
    return c


# ---- nothing lost, repeated or out of order -----------------------------------------------------


async def test_three_reloads_under_traffic_are_not_noticed_by_anybody(redis, make_server):
    server = make_server(workers="3", drain_time="10s")
    users = [unique() for _ in range(100)]
    devices = await fleet(server, users, 2)
    ids = {d: d.client.sync["sync"]["connection_id"] for d in devices}
    assert len(set(ids.values())) == len(devices)
    producer = Producer(redis, users)
    producer.start()
    try:
        for _ in range(3):
            sent = producer.sent
            await hup_async(server)
            await harness.eventually_async(lambda: producer.sent > sent + 200, "traffic goes on")
            assert sum(spread(server)) == len(devices)
    finally:
        producer.stop()
    await check_fleet(producer, devices)
    assert closes(server) == 0
    assert handover(server) == {"given": 3 * len(devices), "taken": 3 * len(devices), "refused": 0}
    statistics = server.stats()["statistics"]
    assert statistics["connected_users"] == len(users)
    assert statistics["active_connections"] == len(devices)
    assert statistics["messages"]["messages_repaired"] == 0, "a list was read"
    await disband(devices)


@pytest.mark.parametrize("numbers", [(1, 4, 2), (4, 1, 3)])
async def test_connections_are_spread_evenly_over_however_many_workers(redis, make_server, numbers):
    server = make_server(workers=str(numbers[0]), drain_time="10s")
    users = [unique() for _ in range(60)]
    devices = await fleet(server, users)
    producer = Producer(redis, users)
    producer.start()
    try:
        for workers in numbers[1:]:
            await hup_async(server, workers=str(workers))
            connections = spread(server)
            assert len(connections) == workers
            assert sum(connections) == len(devices)
            # Each old worker spreads what it has; what is left over goes to different ones.
            assert connections[-1] - connections[0] <= 2
    finally:
        producer.stop()
    await check_fleet(producer, devices)
    await disband(devices)


async def test_a_users_devices_may_come_from_several_workers(redis, make_server):
    """Each old worker hands over what it has at a time of its own."""
    server = make_server(workers="4", drain_time="10s")
    users = [unique() for _ in range(6)]
    devices = await fleet(server, users, 16)
    producer = Producer(redis, users)
    producer.start()
    try:
        for workers in ("3", "4", "1", "4"):
            sent = producer.sent
            await hup_async(server, workers=workers)
            await harness.eventually_async(lambda: producer.sent > sent + 50, "traffic goes on")
    finally:
        producer.stop()
    await check_fleet(producer, devices)
    probe = await Client.attach(server, users[0])
    await probe.send({"type": "get_connection_stats"})
    reply = (await probe.until(lambda b: b["type"] == "connection_stats"))[-1]
    assert reply["payload"]["user_connections"] == 17
    assert reply["payload"]["total_connections"] == len(devices) + 1
    assert reply["payload"]["connected_users"] == len(users)
    await probe.close()
    await disband(devices)


async def test_a_repeat_by_a_producer_is_dropped_by_the_next_worker(redis, make_server, user):
    server = make_server(drain_time="10s")
    async with await Client.attach(server, user) as c:
        one, everybody = message(user=user), message(payload={"to": "all"})
        produce(redis, user, one)
        broadcast(redis, everybody)
        assert [m["id"] for m in await c.take(2)] == [one["id"], everybody["id"]]
        await hup_async(server)
        publish(redis, user, one)
        broadcast(redis, everybody)
        await c.nothing(0.1)


async def test_many_reloads_in_a_row_lose_nobody(redis, make_server):
    server = make_server(drain_time="10s")
    users = [unique() for _ in range(40)]
    devices = await fleet(server, users)
    producer = Producer(redis, users)
    producer.start()
    try:
        for _ in range(12):
            before = server.status()["generation"]
            server.signal(signal.SIGHUP)
            await asyncio.to_thread(server.wait_status, lambda s: s["generation"] > before, "next")
        await asyncio.to_thread(server.wait_status, is_settled(server, 1), "settled")
    finally:
        producer.stop()
    await check_fleet(producer, devices)
    assert closes(server) == 0
    await disband(devices)


async def test_a_kick_during_a_hand_over_misses_nobody(make_server):
    server = make_server(workers="3", drain_time="10s")
    users = [unique() for _ in range(60)]
    devices = await fleet(server, users, 3)
    before = server.status()["generation"]
    server.signal(signal.SIGHUP)
    for u in users:
        answer = await asyncio.to_thread(server.ask, "kick " + u)
        assert answer["ok"]
    await harness.eventually_async(lambda: all(d.closed for d in devices), "all are closed")
    assert {d.closed for d in devices} == {4003}
    await asyncio.to_thread(server.wait_status, is_settled(server, before), "settled")
    assert sum(spread(server)) == 0
    await disband(devices)


# ---- what a connection is in the middle of ------------------------------------------------------


@pytest.mark.parametrize("fragments", [1, 3])
@pytest.mark.parametrize("cut", [1, 3, 5, 7, 20, 300])
async def test_a_device_may_be_in_the_middle_of_sending_a_message(make_server, user, fragments,
                                                                  cut):
    server = make_server()
    text = json.dumps({"type": "ping", "payload": {"client_time": "\u00e4\u20ac" * 200}},
                      ensure_ascii=False).encode()
    size = len(text) // fragments + 1
    parts = [text[i:i + size] for i in range(0, len(text), size)]
    frames = [RawClient.frame(TEXT if i == 0 else 0, part, fin=i == len(parts) - 1)
              for i, part in enumerate(parts)]
    with paused(server, user) as c:
        for frame in frames:
            c.sock.sendall(frame[:cut])
            await hup_async(server)
            c.sock.sendall(frame[cut:])
        reply = c.receive_json()
        assert reply["type"] == "pong"
        assert reply["payload"]["client_time"] == "\u00e4\u20ac" * 200


async def test_a_half_control_frame_between_fragments_moves_along(make_server, user):
    server = make_server()
    ping = RawClient.frame(PING, b"are you there")
    with paused(server, user) as c:
        c.send(TEXT, b'{"type":', fin=False)
        c.sock.sendall(ping[:9])
        await hup_async(server)
        c.sock.sendall(ping[9:])
        assert c.receive() == (PONG, b"are you there")
        await hup_async(server)
        c.send(0, b'"ping"}')
        assert c.receive_json()["type"] == "pong"


async def test_a_bad_message_is_still_one_after_the_move(make_server, user):
    server = make_server()
    with paused(server, user) as c:
        c.send(TEXT, b'{"type":"pi\xe2\x82', fin=False)  # half a character
        await hup_async(server)
        c.send(0, b'ng"}')
        assert c.close_code()[0] == 1007


async def test_a_stalled_reader_gets_the_rest_of_its_frame_and_all_that_follows(
        redis, make_server, user):
    server = make_server(send_buffer_limit="256k", history_size="1000", replay_limit="1000")
    total, pad = 600, "x" * 10000
    with paused(server, user, receive_buffer=4096) as c:
        for n in range(total):
            one = message(user=user, payload={"n": n, "pad": pad})
            store(redis, user, one, size=1000)
            publish(redis, user, one)
            if n == total // 2:
                lagging = server.stats()["statistics"]["messages"]["devices_lagging"]
                await hup_async(server)
        assert lagging == 1, "the reader was to be behind"
        assert server.stats()["statistics"]["messages"]["devices_lagging"] == 1
        await hup_async(server)
        got = []
        while len(got) < total:
            body = await asyncio.to_thread(c.receive_json)
            assert body["type"] != "FULL_SYNC"
            got.append(body["payload"]["n"])
        assert got == list(range(total))
        c.send(TEXT, "ping")
        assert c.receive() == (TEXT, b"pong")


async def test_what_waits_for_a_slow_reader_goes_along(redis, make_server, user):
    """Less than the limit waits, a part of a frame is written: nothing of it is in any list."""
    server = make_server(send_buffer_limit="16M")
    total, pad = 80, "x" * 50000
    with paused(server, user, receive_buffer=4096) as c:
        for n in range(total):
            publish(redis, user, message(user=user, payload={"n": n, "pad": pad}))
            if n in (total // 3, total - 1):
                await hup_async(server)
        got = [(await asyncio.to_thread(c.receive_json))["payload"]["n"] for _ in range(total)]
        assert got == list(range(total))
        c.send(TEXT, "ping")
        assert c.receive() == (TEXT, b"pong")


# ---- what a connection is -----------------------------------------------------------------------


async def test_a_filter_moves_along(redis, make_server, user):
    server = make_server()
    async with await Client.attach(server, user) as only, await Client.attach(server, user) as but:
        await only.command("subscribe", {"types": ["BUDGET_ALERT", "GOAL_ACHIEVED"]})
        await but.command("unsubscribe", {"types": ["BUDGET_ALERT"]})
        await hup_async(server)
        for kind in ("NOTIFICATION", "BUDGET_ALERT"):
            produce(redis, user, message(kind, user=user))
        await only.expect("BUDGET_ALERT")
        await but.expect("NOTIFICATION")
        await only.nothing()
        await but.nothing()
        reply = await only.command("unsubscribe", {"types": ["GOAL_ACHIEVED"]})
        assert reply["payload"]["remaining_subscriptions"] == ["BUDGET_ALERT"]


async def test_a_token_expires_at_its_time_wherever_the_connection_is(make_server, user):
    server = make_server(jwt_leeway="0s")
    with harness.Stopwatch() as watch:
        c = await Client.attach(server, user, token_text=token(user, ttl=4))
        closed = asyncio.ensure_future(c.closed())
        closed.add_done_callback(lambda _: watch.stop())
        await hup_async(server)
        assert await closed == (4002, "token expired")
        assert 2.5 < watch.seconds() and watch.is_within(7), watch


async def test_a_connection_without_a_token_yet_moves_with_its_wishes_and_its_time(
        redis, make_server, user):
    server = make_server(auth_timeout="6s")
    produce(redis, user, one := message(user=user), two := message("BUDGET_ALERT", user=user),
            three := message(user=user))
    watch = harness.Stopwatch().start()
    late = await Client.open(server)
    closed = asyncio.ensure_future(late.closed())
    closed.add_done_callback(lambda _: watch.stop())
    c = await Client.open(server, query={"last_id": one["id"], "types": "NOTIFICATION"})
    await hup_async(server)
    await c.send({"type": "auth", "payload": {"token": token(user)}})
    await c.expect("auth_ok")
    sync = (await c.expect("FULL_SYNC"))["sync"]
    assert (sync["recovered"], sync["missed"]) == (True, 1)
    assert (await c.next())["id"] == three["id"]
    assert two["id"] not in [m.get("id") for m in c.seen]
    assert await closed == (4001, "authentication failed")
    assert 5 < watch.seconds() and watch.is_within(11), watch
    await c.close()


async def test_an_echo_connection_moves(make_server):
    server = make_server(echo="on")
    async with await Client.open(server, path="/echo") as c:
        await hup_async(server)
        await c.send("still there")
        assert await c.raw() == "still there"


async def test_the_connection_keeps_its_id_and_is_not_told_of_its_own_doing(
        redis, make_server, user):
    server = make_server()
    async with await Client.attach(server, user) as one, await Client.attach(server, user) as two:
        produce(redis, user, m := message(user=user))
        for c in (one, two):
            assert (await c.next())["id"] == m["id"]
        await hup_async(server)
        await one.send({"type": "mark_notification_read",
                        "payload": {"notification_ids": [m["id"]]}})
        await one.expect("notifications_marked_read")
        heard = await two.expect("notifications_marked_read")
        assert heard["connection_id"] == one.sync["sync"]["connection_id"]
        await one.nothing(0.1)
        mark = server.mark()
        await one.close()
        server.wait_log("connection-closed conn=" + one.sync["sync"]["connection_id"], after=mark)


async def test_commands_that_wait_for_redis_are_answered_after_all(redis, make_server, user):
    """Redis hangs while they are asked and while the workers change."""
    server = make_server(redis_command_timeout="20s", redis_probe_interval="30s")
    produce(redis, user, m := message(user=user))
    c = await Client.attach(server, user)
    assert (await c.next())["id"] == m["id"]
    redis.pause()
    try:
        await c.send({"type": "dashboard_refresh"})
        await c.nothing()
        before = server.status()["generation"]
        mark = server.mark()
        server.signal(signal.SIGHUP)
        server.wait_log("handover-given connections=1", after=mark)
        await asyncio.to_thread(server.wait_status, is_settled(server, before), "settled")
    finally:
        redis.resume()
    assert (await c.until(lambda b: b["type"] == "dashboard_refresh_completed"))[0][
        "type"] == "full_sync"
    produce(redis, user, m := message(user=user))
    assert (await c.next())["id"] == m["id"]
    await c.close()


async def test_limits_count_those_who_moved(make_server, user):
    server = make_server(max_connections_per_user="3", max_connections_per_address="5")
    mine = [await Client.attach(server, user) for _ in range(3)]
    await hup_async(server)
    assert (await (await Client.open(server, user)).closed())[0] == 4029
    others = []

    async def enters(who):
        """An address has its place again when the server has seen the end of TCP."""
        async def enter():
            try:
                others.append(await Client.attach(server, who))
            except harness.Refused as e:
                assert e.status == 429
                return False
            return True
        await harness.eventually_async(enter, "there is room")

    for _ in range(2):
        await enters(unique())
    with pytest.raises(harness.Refused) as refused:
        await Client.open(server, unique())
    assert refused.value.status == 429
    await mine[0].close()
    await enters(user)
    for c in mine[1:] + others:
        await c.nothing()
        await c.close()


async def test_nobody_is_missing_or_counted_twice_on_the_way(make_server):
    server = make_server(workers="3")
    users = [unique() for _ in range(150)]
    clients = [await Client.attach(server, u) for u in users + users]
    await harness.eventually_async(lambda: server.health().json["total_connections"] == 300,
                                   "all are counted")

    def count():
        told = server.health().json
        return told["total_connections"], told["connected_users"]

    def move():
        with harness.Watch(count, 3) as watch:
            for turn in range(6):
                if turn == 3:
                    server.upgrade()
                else:
                    assert server.ask("reload")["ok"] is True
                watch.go_on()
        return set(watch.seen)

    assert await asyncio.to_thread(move) == {(300, 150)}
    for c in clients:
        await c.close()


async def test_connections_on_unix_sockets_move_too(redis, make_server, user):
    directory = harness.make_directory()
    server = make_server(listen=["unix:" + directory + "/ws.sock"])
    async with await Client.attach(server, user) as c:
        await hup_async(server)
        produce(redis, user, m := message(user=user))
        assert (await c.next())["id"] == m["id"]
    server.stop()
    harness.remove_directory(directory)


async def test_pings_go_on_and_a_dead_peer_is_noticed(make_server, user):
    server = make_server(ping_interval="1s", pong_timeout="2s")
    with paused(server, user) as dead:
        c = await Client.attach(server, user)
        await hup_async(server)
        assert await asyncio.to_thread(dead.receive) == (PING, b"")
        assert await asyncio.to_thread(dead.close_code) == (1006, "")  # it never answers
        await c.nothing(3.5)
        await c.close()


async def test_fewer_connections_allowed_sheds_what_is_too_much(redis, make_server):
    server = make_server()
    users = [unique() for _ in range(10)]
    devices = await fleet(server, users)
    await hup_async(server, max_connections="6")
    await harness.eventually_async(
        lambda: len([d for d in devices if d.closed is not None]) == 4, "four are closed")
    assert {d.closed for d in devices if d.closed is not None} == {1013}
    assert sum(spread(server)) == 6
    left = [d for d in devices if d.closed is None]
    for d in left:
        produce(redis, d.user, message(user=d.user, payload={"stream": "s", "n": 0}))
    await harness.eventually_async(lambda: all(d.last == {"s": 0} for d in left), "served")
    await disband(devices)


# ---- what stays behind --------------------------------------------------------------------------


async def test_tls_connections_are_closed_over_drain_time_and_plain_ones_stay(
        redis, make_server, user, tmp_path):
    certificate, key = harness.make_certificate(str(tmp_path))
    directory = harness.make_directory()
    server = make_server(healthy=False, tls_certificate=certificate, tls_key=key,
                         listen=["127.0.0.1:0", "unix:" + directory + "/ws.sock"],
                         drain_time="2s")
    tls = harness.trusting(certificate)
    over = [await Client.attach(server, unique(), tls=tls) for _ in range(12)]
    plain = await Client.attach(server, user, index=1)
    before = server.status()["generation"]

    await harness.closed_over(over, (1012, "restarting"), 2, lambda: server.ask("reload"))
    await asyncio.to_thread(server.wait_status, is_settled(server, before), "settled")
    produce(redis, user, m := message(user=user))
    assert (await plain.next())["id"] == m["id"]
    await plain.close()
    server.stop()
    harness.remove_directory(directory)


# ---- trouble ------------------------------------------------------------------------------------


async def test_redis_may_be_away_while_the_workers_change(make_server):
    """Nobody is closed; what was stored meanwhile comes when Redis is back."""
    own = harness.Redis(appendonly=True)
    server = make_server(use_redis=own, drain_time="10s")
    users = [unique() for _ in range(20)]
    devices = await fleet(server, users, 2)
    for u in users:
        produce(own, u, message(user=u, payload={"stream": "s", "n": 0}))
    await harness.eventually_async(lambda: all(d.last == {"s": 0} for d in devices), "first")
    own.kill()
    await hup_async(server)
    assert sum(spread(server)) == len(devices)
    own.start()
    for u in users:
        store(own, u, message(user=u, payload={"stream": "s", "n": 1}))
    await harness.eventually_async(lambda: all(d.last["s"] == 1 for d in devices), "repaired")
    for u in users:
        produce(own, u, message(user=u, payload={"stream": "s", "n": 2}))
    await harness.eventually_async(lambda: all(d.last["s"] == 2 for d in devices), "live")
    assert [d.wrong for d in devices if d.wrong] == []
    assert closes(server) == 0
    await disband(devices)
    server.stop()
    own.end()


@pytest.mark.parametrize("who", ["taker", "giver"])
async def test_a_worker_killed_in_the_middle_loses_only_connections(redis, make_server, who):
    server = make_server(workers="2", drain_time="5s")
    users = [unique() for _ in range(6)]
    total = 400
    sent = {u: [message(user=u, payload={"n": n}) for n in range(total)] for u in users}
    attached, positioned = harness.Everyone(users), harness.Everyone(users)
    ahead = {u: threading.Semaphore(60) for u in users}

    def received(u):
        positioned.arrived(u)
        ahead[u].release()

    followers = [asyncio.ensure_future(harness.follow(
        server, u, total, lambda u=u: attached.arrived(u), lambda u=u: received(u)))
        for u in users]
    await attached.wait()
    extra = await fleet(server, [unique() for _ in range(100)])

    def fire():
        for n in range(total):
            for u in users:
                if not ahead[u].acquire(timeout=harness.TIMEOUT):
                    return
                produce(redis, u, sent[u][n])

    thread = threading.Thread(target=fire)
    thread.start()
    try:
        await positioned.wait()  # without a last_id a device is owed replay-limit only
        for _ in range(3):
            old = server.worker_pids()
            before = server.status()["generation"]
            mark = server.mark()
            server.signal(signal.SIGHUP)
            if who == "giver":
                await asyncio.to_thread(server.wait_log, "worker-draining", None, mark)
                victims = old[:1]
            else:
                await asyncio.to_thread(
                    server.wait_status, lambda s: s["generation"] > before, "the new ones serve")
                victims = [p for p in server.worker_pids() if p not in old][:1]
            for pid in victims:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass  # it was quicker
            await asyncio.to_thread(server.wait_status, is_settled(server, before), "settled")
        got = await asyncio.gather(*followers)
    finally:
        thread.join()
    for messages in got:
        assert [m["payload"]["n"] for m in messages] == list(range(total))
    there = len([d for d in extra if d.closed is None])
    await harness.eventually_async(
        lambda: server.stats()["statistics"]["active_connections"]
        == len([d for d in extra if d.closed is None]), "the gauges are right")
    assert there > 0
    await disband(extra)


async def test_a_taker_that_hangs_is_done_without(redis, make_server, user):
    """Its share goes to the other, after a while in which the old worker serves."""
    server = make_server(workers="2", drain_time="10s")
    users = [unique() for _ in range(30)]
    devices = await fleet(server, users)
    producer = Producer(redis, users, 0.005)
    before = server.status()["generation"]
    old = server.worker_pids()
    producer.start()
    hung = None
    try:
        server.signal(signal.SIGHUP)
        await asyncio.to_thread(server.wait_status, lambda s: s["generation"] > before, "next")
        hung = [p for p in server.worker_pids() if p not in old][0]
        os.kill(hung, signal.SIGSTOP)
        await asyncio.sleep(1.5)
        os.kill(hung, signal.SIGCONT)
        await asyncio.to_thread(server.wait_status, is_settled(server, before), "settled")
    finally:
        if hung:
            os.kill(hung, signal.SIGCONT)
        producer.stop()
    await check_fleet(producer, devices)
    await disband(devices)
