"""Redis away, back, slow, guarded, emptied: the process never stops, and tells (contract: Redis,
What delivery promises)."""

import json
import signal
import threading

import pytest
import redis as redis_client

import harness
from harness import Client, assert_error, ids, message, produce, store, token

# Two and a half intervals without a probe make a worker late, three are promised.
INTERVAL_S = 0.3
PROBES = {"redis_probe_interval": "300ms"}


def degraded(server):
    def look():
        answer = server.health()
        return answer.status == 503 and answer.json
    return harness.eventually(look, "degraded")


def degraded_in_time(server, watch):
    """Within three intervals, as is promised."""
    body = degraded(server)
    assert watch.is_within(3 * INTERVAL_S + 0.4), watch
    return body


def kill_links(redis, kind):
    """Cuts the links of every Belfry: pubsub (subscribers) or normal (command links)."""
    redis.client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")


# ---- away at start ------------------------------------------------------------------------------


async def test_without_redis_everything_else_works_and_it_heals_when_redis_comes(
        make_redis, make_server, user):
    redis = make_redis()
    redis.kill()
    server = make_server(use_redis=redis, healthy=False, redis_connect_timeout="500ms",
                         redis_command_timeout="500ms", **PROBES)
    body = degraded(server)
    assert body["status"] == "degraded" and body["redis"]["status"] == "disconnected"
    assert server.http("GET", "/ws/health?live").status == 200
    c = await Client.open(server, user)
    assert (await c.command("ping"))["type"] == "pong"
    assert (await c.command("subscribe", {"types": ["A"]}))["type"] == "subscription_confirmed"
    for kind, payload in (("mark_notification_read", {"notification_ids": ["x"]}),
                          ("dashboard_refresh", None)):
        reply = await c.command(kind, payload)
        assert reply["type"] == "error" and reply["payload"]["code"] == "REDIS_UNAVAILABLE"
    admin = token("root", admin=True)
    for path in ("/ws/test-message/%s?message_type=A" % user, "/ws/broadcast?message_type=A"):
        assert_error(server.http("POST", path, body={}, token=admin), 502, "EXTERNAL_SERVICE_ERROR")
    stats = server.stats()
    assert stats["statistics"]["redis_stats"]["error"]
    assert stats["statistics"]["active_connections"] == 1

    redis.start()
    await c.expect("FULL_SYNC")
    server.wait_healthy()
    produce(redis, user, one := message("A", user=user))
    assert (await c.next())["id"] == one["id"]
    await c.close()


# ---- lost links ---------------------------------------------------------------------------------


async def test_a_lost_subscriber_link_is_repaired_without_a_reconnect(redis, make_server, user):
    server = make_server()
    devices = [await Client.attach(server, user) for _ in range(4)]
    for _ in range(4):
        first, second = message(user=user), message(user=user)
        produce(redis, user, first)
        kill_links(redis, "pubsub")
        produce(redis, user, second)  # nobody is subscribed now
        for c in devices:
            assert ids(await c.take(2)) == [first["id"], second["id"]]
            assert c.ws.open if hasattr(c.ws, "open") else True
    for c in devices:
        await c.nothing()
        await c.close()
    assert server.stats()["statistics"]["messages"]["messages_repaired"] > 0
    server.wait_healthy()


async def test_a_lost_command_link_comes_back(redis, server, user):
    async with await Client.attach(server, user) as c:
        kill_links(redis, "normal")
        server.wait_healthy()
        produce(redis, user, one := message(user=user))
        assert (await c.next())["id"] == one["id"]
        async with await Client.attach(server, user) as other:
            assert (await other.next())["id"] == one["id"]


async def test_under_fire_and_losing_links_every_message_comes_once_and_in_order(
        redis, make_server, user):
    server = make_server()
    total = 300
    sent = [message(user=user, payload={"n": n}) for n in range(total)]
    ahead = threading.Semaphore(70)  # fewer than the list holds

    def fire():
        for n, one in enumerate(sent):
            if not ahead.acquire(timeout=harness.TIMEOUT):
                return
            produce(redis, user, one)
            if n % 40 == 20:
                kill_links(redis, "pubsub")
            if n % 90 == 50:
                kill_links(redis, "normal")

    thread = threading.Thread(target=fire)
    async with await Client.attach(server, user) as c:
        thread.start()
        try:
            got = []
            while len(got) < total:
                got.append((await c.next())["payload"]["n"])
                ahead.release()
            assert got == list(range(total))
            await c.nothing()
        finally:
            thread.join()


async def test_devices_survive_a_restart_of_redis_that_kept_its_data(make_redis, make_server, user):
    redis = make_redis(appendonly=True)
    server = make_server(use_redis=redis)
    async with await Client.attach(server, user) as c:
        produce(redis, user, one := message(user=user))
        assert (await c.next())["id"] == one["id"]
        redis.kill()
        degraded(server)
        assert (await c.command("ping"))["type"] == "pong"
        redis.start()
        produce(redis, user, two := message(user=user))  # before anyone subscribed again, mostly
        assert (await c.next())["id"] == two["id"]
        server.wait_healthy()
        await c.nothing()


async def test_an_emptied_redis_is_no_reason_to_send_anything_again(redis, make_server, user):
    server = make_server()
    async with await Client.attach(server, user) as c:
        produce(redis, user, one := message(user=user))
        assert (await c.next())["id"] == one["id"]
        redis.client.flushall()
        redis.client.script_flush()
        kill_links(redis, "pubsub")
        server.wait_healthy()
        produce(redis, user, two := message(user=user))
        assert (await c.next())["id"] == two["id"]
        answer = server.http("POST", "/ws/test-message/%s?message_type=NOTIFICATION" % user,
                             body={}, token=token(user))
        assert answer.status == 200, answer.body  # the script is loaded again
        assert (await c.next())["id"] == answer.json["id"]
        await c.nothing()


async def test_a_gap_that_the_list_does_not_fill_is_told(redis, make_server, user):
    server = make_server(history_size="5")
    async with await Client.attach(server, user) as c:
        produce(redis, user, one := message(user=user))
        assert (await c.next())["id"] == one["id"]
        with redis.client.pipeline(transaction=True) as p:  # nobody subscribes again in between
            p.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            missed = [message(user=user) for _ in range(7)]
            for m in missed:
                p.lpush("notifications:" + user, json.dumps(m))
                p.ltrim("notifications:" + user, 0, 4)
                p.publish("ws:user:" + user, json.dumps(m))
            p.execute()
        told = await c.expect("FULL_SYNC")
        assert told["sync"]["recovered"] is False and told["sync"]["missed"] == 5
        assert ids(await c.take(5)) == [m["id"] for m in missed[2:]]
        await c.nothing()
        stats = server.stats()["statistics"]["messages"]
        assert stats["repairs_unrecovered"] == 1


# ---- hung ---------------------------------------------------------------------------------------


async def test_a_hung_redis_degrades_health_in_time_and_heals(make_redis, make_server, user):
    redis = make_redis()
    server = make_server(use_redis=redis, redis_command_timeout="400ms",
                         redis_connect_timeout="400ms", **PROBES)
    async with await Client.attach(server, user) as c:
        redis.pause()
        try:
            with harness.Stopwatch() as watch:
                body = degraded_in_time(server, watch)
            assert body["status"] == "degraded"
            assert (await c.command("ping"))["type"] == "pong"
            waiting = await Client.open(server, harness.unique())
            assert (await waiting.command("ping"))["type"] == "pong"
            # A command that hangs is answered when it is given up.
            reply = await c.command("mark_notification_read", {"notification_ids": ["a"]})
            assert reply["payload"]["code"] == "REDIS_UNAVAILABLE"
        finally:
            redis.resume()
        server.wait_healthy()
        await waiting.expect("FULL_SYNC")
        await waiting.close()
        produce(redis, user, one := message(user=user))
        assert (await c.until(lambda m: m.get("id") == one["id"]))


async def test_a_demoted_primary_is_noticed_though_it_answers(make_redis, make_server, user):
    redis = make_redis()
    server = make_server(use_redis=redis, **PROBES)
    async with await Client.attach(server, user) as c:
        with harness.Stopwatch() as watch:
            redis.client.execute_command("REPLICAOF", "127.0.0.1", "1")
            degraded_in_time(server, watch)
        assert server.http("GET", "/ws/health?live").status == 200
        redis.client.execute_command("REPLICAOF", "NO", "ONE")
        produce(redis, user, one := message(user=user))
        assert (await c.next())["id"] == one["id"]
        server.wait_healthy()
        produce(redis, user, two := message(user=user))
        assert (await c.next())["id"] == two["id"]


# ---- errors -------------------------------------------------------------------------------------


async def test_a_redis_that_refuses_writes_is_an_error_of_the_request_alone(
        make_redis, make_server, user):
    redis = make_redis()
    server = make_server(use_redis=redis)
    async with await Client.attach(server, user) as c:
        redis.client.config_set("maxmemory", "1")
        try:
            answer = server.http("POST", "/ws/test-message/%s?message_type=NOTIFICATION" % user,
                                 body={}, token=token(user))
            assert_error(answer, 502, "EXTERNAL_SERVICE_ERROR")
            reply = await c.command("mark_notification_read", {"notification_ids": ["a"]})
            assert reply["type"] == "error"
        finally:
            redis.client.config_set("maxmemory", "0")
        reply = await c.command("mark_notification_read", {"notification_ids": ["a"]})
        assert reply["type"] == "notifications_marked_read"
        assert (await c.command("ping"))["type"] == "pong"


def without_memory(redis):
    redis.client.config_set("maxmemory", "1")


def without_scripts(redis):
    redis.client.acl_setuser("default", enabled=True, categories=["+@all"], commands=["-eval"],
                             keys=["*"], channels=["*"], nopass=True)


@pytest.mark.parametrize("limit", [without_memory, without_scripts])
async def test_a_redis_that_refuses_part_goes_on_delivering(make_redis, make_server, user, limit):
    """Without memory it refuses writes, and within MULTI everything; but it publishes, and answers
    what only reads."""
    redis = make_redis()
    server = make_server(use_redis=redis, **PROBES)
    store(redis, user, stored := message(user=user))

    def published():
        return redis.client.info("commandstats").get("cmdstat_publish", {"calls": 0})["calls"]

    def lost():
        return server.stats()["statistics"]["redis_stats"]["redis_probe_failures"]

    async with await Client.attach(server, user) as c:
        await c.take(1)
        limit(redis)
        before, lost_before = published(), lost()
        harness.eventually(lambda: published() >= before + 12, "probes go on")
        assert server.health().status == 200
        assert lost() == lost_before
        harness.publish(redis, user, one := message(user=user))
        assert (await c.next())["id"] == one["id"]
        async with await Client.attach(server, user) as late:
            assert late.sync["sync"]["missed"] == 1
            assert (await late.next())["id"] == stored["id"]
        await c.nothing()


# ---- ways to Redis ------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["tcp", "password", "user and database", "database"])
async def test_redis_urls(make_redis, make_server, user, way):
    if way == "tcp":
        redis = make_redis(tcp=True)
        url, number = "redis://127.0.0.1:%d/0" % redis.port, 0
    elif way == "password":
        redis = make_redis(password="s3cret-w0rd")
        url, number = redis.url, 0
    elif way == "database":
        redis = make_redis()
        url, number = redis.url + "?db=3", 3
    else:
        redis = make_redis(tcp=True)
        redis.client.execute_command("ACL", "SETUSER", "gate", "on", ">p@ss/w0rd", "~*", "&*",
                                     "+@all")
        url, number = "redis://gate:p%%40ss%%2Fw0rd@127.0.0.1:%d/7" % redis.port, 7
    server = make_server(use_redis=redis, redis_url=url)
    keyed = redis_client.Redis(unix_socket_path=redis.path, db=number, password=redis.password)
    keyed.lpush("notifications:" + user, json.dumps(one := message(user=user)))
    async with await Client.attach(server, user) as c:
        assert (await c.next())["id"] == one["id"]
        harness.publish(redis, user, two := message(user=user))
        assert (await c.next())["id"] == two["id"]
    for secret in ("s3cret-w0rd", "p@ss/w0rd", "p%40ss"):
        assert secret not in server.log_text() and secret not in json.dumps(server.status())


async def test_a_wrong_password_degrades_and_is_not_told_to_the_log(make_redis, make_server, user):
    redis = make_redis(password="right-w0rd")
    server = make_server(use_redis=redis, healthy=False,
                         redis_url="unix://:wr0ng-w0rd@" + redis.path)
    degraded(server)
    async with await Client.open(server, user) as c:
        assert (await c.command("ping"))["type"] == "pong"
    assert "wr0ng" not in server.log_text() and "right-w0rd" not in server.log_text()
    redis.client.config_set("requirepass", "wr0ng-w0rd")
    server.wait_healthy()


# ---- two instances ------------------------------------------------------------------------------


async def test_two_instances_on_one_redis_serve_one_user_together(redis, make_server, user):
    one, two = make_server(), make_server()
    async with await Client.attach(one, user) as a, await Client.attach(two, user) as b:
        produce(redis, user, first := message(user=user))
        for c in (a, b):
            assert (await c.next())["id"] == first["id"]
        answer = one.http("POST", "/ws/test-message/%s?message_type=X" % user, body={},
                          token=token(user))
        for c in (a, b):
            assert (await c.next())["id"] == answer.json["id"]
        reply = await a.command("mark_notification_read", {"notification_ids": [first["id"]]})
        heard = await b.expect("notifications_marked_read")
        assert heard["payload"]["marked_read"] == reply["payload"]["marked_read"]
        for c in (a, b):
            await c.nothing()
        # A user connected to the other instance only is found, too.
        other = harness.unique()
        async with await Client.attach(two, other) as d:
            assert one.http("POST", "/ws/test-message/%s?message_type=X" % other, body={},
                            token=token(other)).status == 200
            await d.expect("X")


async def test_a_device_may_resume_on_the_other_instance(redis, make_server, user):
    one, two = make_server(), make_server()
    sent = [message(user=user) for _ in range(5)]
    a = await Client.attach(one, user)
    produce(redis, user, *sent[:2])
    assert ids(await a.take(2)) == ids(sent[:2])
    one.signal(signal.SIGKILL)
    await a.closed()
    store(redis, user, *sent[2:])
    async with await Client.attach(two, user, query={"last_id": sent[1]["id"]}) as b:
        assert b.sync["sync"]["recovered"] is True
        assert ids(await b.take(3)) == ids(sent[2:])
    assert one.wait() == -9
