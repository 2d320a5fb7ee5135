"""What Redis has to say about a token: revoked (denylist-key), and whose it is (user-map-key)."""

import json
import subprocess

import pytest

import harness
from harness import Client, RawClient, message, produce, publish, store, token

AUTH = (4001, "authentication failed")
REVOKED = (4003, "token revoked")
OVERLOAD = (1013, "overloaded")


@pytest.fixture
def jti():
    return harness.unique("jti")


def deny(redis, jti, template="denylist:%s"):
    redis.client.set(template % jti, "1", ex=600)


def ctl(server, *arguments):
    return subprocess.run([harness.BELFRYCTL, "--config", server.config, *arguments],
                          capture_output=True, text=True, check=False, timeout=harness.TIMEOUT)


# ---- revoked before -----------------------------------------------------------------------------


async def test_a_revoked_token_opens_nothing(redis, server, user, jti):
    text = token(user, jti=jti)
    store(redis, user, message(user=user))
    async with await Client.attach(server, token_text=text):
        pass
    deny(redis, jti)
    c = await Client.open(server, token_text=text)
    assert await c.closed() == AUTH
    assert c.seen == []  # not even FULL_SYNC
    c = await Client.open(server)
    await c.send({"type": "auth", "payload": {"token": text}})
    assert await c.closed() == AUTH
    assert [m["type"] for m in c.seen] in ([], ["auth_ok"])
    for other in (token(user), token(user, jti=jti + "x"), token(user, jti=17)):
        async with await Client.attach(server, token_text=other):
            pass


async def test_whatever_stands_at_the_key_revokes(redis, server, user):
    r = redis.client
    for i, write in enumerate((lambda k: r.sadd(k, "x"), lambda k: r.set(k, ""),
                               lambda k: r.hset(k, "a", "b"))):
        jti = harness.unique("jti")
        write("denylist:" + jti)
        c = await Client.open(server, token_text=token(user, jti=jti))
        assert await c.closed() == AUTH, i


async def test_the_key_s_form_is_an_option_and_empty_is_off(redis, make_server, user, jti):
    deny(redis, jti)
    server = make_server(denylist_key="gone:{jti}:x")
    async with await Client.attach(server, token_text=token(user, jti=jti)):
        pass
    deny(redis, jti, "gone:%s:x")
    c = await Client.open(server, token_text=token(user, jti=jti))
    assert await c.closed() == AUTH
    server = make_server(denylist_key="")
    for claim in (jti, {"not": "text"}):
        async with await Client.attach(server, token_text=token(user, jti=claim)):
            pass


async def test_http_requests_are_refused_too(redis, server, user, jti):
    text = token(user, admin=True, jti=jti)
    path = "/ws/test-message/%s?message_type=HELLO" % user
    async with await Client.attach(server, user):
        assert server.http("GET", "/ws/stats", token=text).status == 200
        assert server.http("POST", path, body=b"{}", token=text).status == 200
        deny(redis, jti)
        for method, where, body in (("GET", "/ws/stats", None), ("POST", path, b"{}"),
                                    ("POST", "/ws/broadcast?message_type=HELLO", b"{}")):
            answer = server.http(method, where, body=body, token=text)
            harness.assert_error(answer, 401)
            assert answer.json["message"] == "Authentication failed: revoked"


async def test_show_tells_what_to_revoke(server, user, jti):
    async with await Client.attach(server, token_text=token(user, jti=jti)) as c:
        shown = ctl(server, "show", harness.connection(c))
        assert shown.returncode == 0 and (", id %s\n" % jti) in shown.stdout
        shown = ctl(server, "show", "--json", harness.connection(c))
        assert json.loads(shown.stdout)["token_id"] == jti
    async with await Client.attach(server, user) as c:
        shown = ctl(server, "show", "--json", harness.connection(c))
        assert json.loads(shown.stdout)["token_id"] is None


async def test_a_fresh_token_in_a_frame_is_looked_up(redis, server, user, jti):
    deny(redis, jti)
    async with await Client.attach(server, user) as c:
        await c.send({"type": "auth", "payload": {"token": token(user, jti=jti)}})
        assert await c.closed() == AUTH


# ---- revoked later ------------------------------------------------------------------------------


async def test_revoke_closes_the_token_s_connections_on_every_instance(
        redis, make_server, user, jti):
    one, two = make_server(), make_server()
    text = token(user, jti=jti)
    mine = [await Client.attach(s, token_text=text) for s in (one, one, two, two)]
    async with await Client.attach(one, user) as other, \
            await Client.attach(two, token_text=token(user, jti=jti + "2")) as second:
        done = ctl(one, "revoke", jti, "--json", "--ttl", "1h")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert told["jti"] == jti and told["closed"] == 4 and told["complete"]
        assert [i["closed"] for i in told["instances"] if i["closed"]] == [2, 2]
        for c in mine:
            assert await c.closed() == REVOKED
        assert 3000 < redis.client.ttl("denylist:" + jti) <= 3600
        for c in (other, second):
            assert (await c.command("ping"))["type"] == "pong"
    c = await Client.open(two, token_text=text)
    assert await c.closed() == AUTH
    assert text not in one.log_text() + two.log_text()


async def test_a_key_that_somebody_else_wrote_is_noticed(redis, make_server, user):
    server = make_server(denylist_interval="1s")
    ids = [harness.unique("jti") for _ in range(300)]  # more than go into one question
    clients = [await Client.attach(server, token_text=token("%s-%d" % (user, i), jti=one))
               for i, one in enumerate(ids)]
    victims = {0, 17, 299}
    for i in victims:
        deny(redis, ids[i])
    for i in victims:
        assert await clients[i].closed() == REVOKED
    for i, c in enumerate(clients):
        if i not in victims:
            assert (await c.command("ping"))["type"] == "pong"
            await c.close()


async def test_off_is_at_connect_only_but_a_revocation_is_heard(redis, make_server, user, jti):
    server = make_server(denylist_interval="off")
    c = await Client.attach(server, token_text=token(user, jti=jti))
    deny(redis, jti)
    await c.nothing(1.5)
    told = ctl(server, "revoke", jti).stdout
    assert told.startswith("1 connection of %s closed\n" % jti)
    assert "  instance %s: 1\n" % server.status()["instance_id"] in told
    assert await c.closed() == REVOKED


async def test_the_token_s_last_id_counts_after_a_fresh_one(redis, make_server, user, jti):
    server = make_server(denylist_interval="1s")
    first, second = jti + "-1", jti + "-2"
    c = await Client.attach(server, token_text=token(user, jti=first))
    assert (await c.command("auth", {"token": token(user, jti=second)}))["type"] == "auth_ok"
    deny(redis, first)
    await c.nothing(2.5)
    deny(redis, second)
    assert await c.closed() == REVOKED


async def test_a_fresh_token_that_is_revoked_is_never_accepted(redis, server, user, jti):
    deny(redis, jti)
    c = await Client.attach(server, token_text=token(user))
    await c.send({"type": "auth", "payload": {"token": token(user, jti=jti)}})
    await c.send({"type": "ping", "payload": {}})
    assert await c.closed() == AUTH
    assert [m["type"] for m in c.seen if m["type"] != "FULL_SYNC"] == []


def test_what_is_asked_behind_a_fresh_token_is_answered_behind_it(server, user, jti):
    frames = [{"type": "ping", "payload": {"client_time": 1}},
              {"type": "auth", "payload": {"token": token(user, jti=jti)}},
              {"type": "ping", "payload": {"client_time": 2}},
              {"type": "auth", "payload": {"token": token(user, jti=jti + "-2")}},
              {"type": "ping", "payload": {"client_time": 3}}]
    with RawClient(server, "token=" + token(user, jti=jti + "-0")) as c:
        assert c.receive_json()["type"] == "FULL_SYNC"
        c.sock.sendall(b"".join(RawClient.frame(1, json.dumps(f).encode()) for f in frames))
        got = [c.receive_json() for _ in frames]
        assert [m["type"] for m in got] == ["pong", "auth_ok", "pong", "auth_ok", "pong"]
        assert [m["payload"]["client_time"] for m in got if m["type"] == "pong"] == [1, 2, 3]
        c.sock.sendall(RawClient.frame(1, b"ping"))  # and it is read from again
        assert c.receive() == (1, b"pong")


@pytest.mark.parametrize("is_mapped", [False, True])
async def test_a_fresh_token_does_not_wait_long_for_redis(make_server, make_redis, user, jti,
                                                          is_mapped):
    redis = make_redis()
    server = make_server(redis, redis_command_timeout="500ms",
                         user_map_key="users" if is_mapped else None)
    redis.client.hset("users", user, user)
    c = await Client.attach(server, token_text=token(user))
    if not is_mapped:
        deny(redis, jti)
    redis.pause()
    await c.send({"type": "auth", "payload": {"token": token(user, jti=jti)}})
    await c.send({"type": "ping", "payload": {}})
    if is_mapped:  # whose it is must be known
        await c.expect("pong")
        await c.nothing()
        redis.resume()
        await c.expect("auth_ok")
        await c.nothing()
        await c.close()
    else:
        await c.expect("auth_ok")
        await c.expect("pong")
        redis.resume()
        assert await c.closed() == AUTH


async def test_a_reload_takes_the_id_along(redis, make_server, user, jti):
    server = make_server(denylist_interval="1s")
    c = await Client.attach(server, token_text=token(user, jti=jti))
    generation = server.generation
    assert ctl(server, "reload").returncode == 0
    server.wait_status(lambda s: s["generation"] > generation and
                       all(w["generation"] > generation for w in s["workers"]), "only new workers")
    assert (await c.command("ping"))["type"] == "pong"
    deny(redis, jti)
    assert await c.closed() == REVOKED


@pytest.mark.parametrize("how", ["hung", "gone"])
async def test_while_redis_is_away_connections_go_on_and_are_looked_up_then(
        make_server, make_redis, user, jti, how):
    redis = make_redis(appendonly=True, arguments=["--appendfsync", "always"])
    server = make_server(redis, denylist_interval="off")
    store(redis, user, message(user=user))
    deny(redis, jti)
    if how == "hung":
        redis.pause()
    else:
        redis.kill()
        server.wait_log("w0 redis-down link=command")
        server.wait_log("w1 redis-down link=command")
    c = await Client.open(server, token_text=token(user, jti=jti))
    assert (await c.command("ping"))["type"] == "pong"
    if how == "hung":
        redis.resume()
    else:
        redis.restart()
    assert await c.closed() == AUTH
    assert [m["type"] for m in c.seen if m["type"] != "pong"] == []


def test_revoke_says_what_it_cannot_do(redis, make_server, jti):
    server = make_server(denylist_key="")
    done = ctl(server, "revoke", jti)
    assert done.returncode == 1 and "denylist-key is empty" in done.stderr
    assert ctl(server, "revoke", "a\nb").returncode == 2
    server = make_server()
    server.stop()
    done = ctl(server, "revoke", jti)
    assert done.returncode == 1 and "denylist-interval" in done.stderr
    assert redis.client.exists("denylist:" + jti)


# ---- whose token it is --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mapped(make_shared):
    return make_shared(user_map_key="auth:users", auth_timeout="3s")


def call(redis, claim, user):
    redis.client.hset("auth:users", claim, user)


async def test_the_user_is_who_the_hash_says(redis, mapped, user):
    claim = harness.unique("auth0|")
    text = token(claim)
    c = await Client.open(mapped, token_text=text)
    assert await c.closed() == AUTH and c.seen == []
    for bad in ("", "a\nb", "x" * 257):
        call(redis, claim, bad)
        c = await Client.open(mapped, token_text=text)
        assert await c.closed() == AUTH and c.seen == []
    call(redis, claim, user)
    store(redis, user, message(id="stored", user=user))
    async with await Client.attach(mapped, token_text=text, query={"last_id": "none"}) as c:
        assert c.sync["user_id"] == user and c.sync["sync"]["recovered"] is False
        assert (await c.next())["id"] == "stored"
        produce(redis, user, message(id="live", user=user))
        assert (await c.next())["id"] == "live"
        publish(redis, claim, message(user=claim))
        await c.nothing()


async def test_what_a_client_says_at_once_waits_for_its_name(redis, mapped, user):
    claim = harness.unique("claim")
    call(redis, claim, user)
    frames = [json.dumps(f).encode() for f in (
        {"type": "auth", "payload": {"token": token(claim), "types": ["A", "B"]}},
        {"type": "subscribe", "payload": {"types": ["C"]}},
        {"type": "ping", "payload": {}})]
    with RawClient(mapped) as c:
        c.sock.sendall(b"".join(RawClient.frame(1, f) for f in frames))
        got = [c.receive_json() for _ in range(4)]
        assert [m["type"] for m in got if m["type"] != "FULL_SYNC"] == [
            "auth_ok", "subscription_confirmed", "pong"]
        confirmed = next(m for m in got if m["type"] == "subscription_confirmed")
        assert confirmed["payload"]["user_id"] == user
    with RawClient(mapped, query="token=" + token(claim)) as c:
        c.sock.sendall(RawClient.frame(1, b"ping") + RawClient.frame(1, b"ping"))
        got = [c.receive()[-1] for _ in range(3)]
        assert sum(1 for text in got if bytes(text) == b"pong") == 2


async def test_a_fresh_token_must_be_the_same_user_s(redis, mapped, user):
    one, two, other = (harness.unique("claim") for _ in range(3))
    call(redis, one, user)
    call(redis, two, user)
    call(redis, other, user + "-other")
    async with await Client.attach(mapped, token_text=token(one)) as c:
        assert (await c.command("auth", {"token": token(two)}))["type"] == "auth_ok"
        await c.send({"type": "auth", "payload": {"token": token(other)}})
        assert await c.closed() == AUTH
    async with await Client.attach(mapped, token_text=token(one)) as c:
        await c.send({"type": "auth", "payload": {"token": token(user)}})
        assert await c.closed() == AUTH


async def test_a_revoked_token_is_nobody_s(redis, mapped, user, jti):
    claim = harness.unique("claim")
    call(redis, claim, user)
    deny(redis, jti)
    c = await Client.open(mapped, token_text=token(claim, jti=jti))
    assert await c.closed() == AUTH and c.seen == []


async def test_http_requests_are_made_by_who_the_hash_says(redis, mapped, user):
    claim = harness.unique("claim")
    path = "/ws/test-message/%s?message_type=HELLO" % user
    text = token(claim)
    harness.assert_error(mapped.http("POST", path, body=b"{}", token=text), 401)
    call(redis, claim, user)
    async with await Client.attach(mapped, token_text=text) as c:
        assert mapped.http("POST", path, body=b"{}", token=text).status == 200
        assert (await c.expect("HELLO"))["payload"]["sent_by"] == user
        harness.assert_error(mapped.http("POST", path.replace(user, claim), body=b"{}",
                                         token=text), 403)
        harness.assert_error(mapped.http("GET", "/ws/stats", token=text), 403)
    admin = token(claim, admin=True)
    assert mapped.http("GET", "/ws/stats", token=admin).status == 200


async def test_without_redis_nobody_is_known(make_server, make_redis, user):
    redis = make_redis()
    server = make_server(redis, user_map_key="users", auth_timeout="2s",
                         redis_command_timeout="500ms")
    redis.client.hset("users", "claim", user)
    redis.pause()
    c = await Client.open(server, token_text=token("claim"))
    assert await c.closed(8) == OVERLOAD and c.seen == []
    answer = server.http("GET", "/ws/stats", token=token("claim", admin=True))
    harness.assert_error(answer, 503)
    c = await Client.open(server, token_text=token("claim"))
    redis.resume()
    assert (await c.expect("FULL_SYNC"))["user_id"] == user
    await c.close()


async def test_who_leaves_while_it_is_looked_up_leaves_nothing(make_server, make_redis, user):
    redis = make_redis()
    server = make_server(redis, user_map_key="users", workers="1")
    redis.client.hset("users", "claim", user)
    redis.pause()
    clients = [await Client.open(server, token_text=token("claim", jti="j%d" % i))
               for i in range(20)]
    for c in clients[::2]:
        await c.vanish()
    for c in clients[1::2]:
        await c.close()
    redis.resume()
    server.wait_status(lambda s: s["totals"]["connections"]["websockets"] == 0, "all are gone")
    c = await Client.attach(server, token_text=token("claim"))
    assert c.sync["user_id"] == user
    await c.close()
