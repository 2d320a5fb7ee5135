"""belfryctl explain: what it says of messages that took every way there is."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import time

import pytest

import harness
from harness import (BELFRYCTL, TIMEOUT, Client, broadcast, connection, eventually,
                     eventually_async, message, on_worker, produce, publish, store, token,
                     unique, worker_of)

DONE, FAILED, USAGE, TIMED_OUT = 0, 1, 2, 3


class Answer:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err
        self.body = json.loads(out) if out.startswith("{") else None

    def outcomes(self):
        return [d["outcome"] for d in self.body["devices"]]

    def device(self, client):
        """What is said of one client's connection."""
        found = [d for d in self.body["devices"] if d["connection"] == connection(client)]
        assert len(found) == 1, (connection(client), self.body["devices"])
        return found[0]

    def fates(self, client=None):
        return [r["fate"] for r in self.body["records"]
                if client is None or r.get("connection") == connection(client)]


def run(server, *arguments, expect=DONE):
    done = subprocess.run([BELFRYCTL, "--config", getattr(server, "config", server), *arguments],
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT * 3,
                          env={k: v for k, v in os.environ.items()
                               if not k.startswith("BELFRY_")}, check=False)
    answer = Answer(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert not harness.SANITIZER.search(answer.err), answer.err
    assert expect in (None, answer.code), (arguments, answer.code, answer.out, answer.err)
    return answer


def table(server, user, id, expect=DONE):
    return run(server, "explain", user, "--", id, expect=expect)


async def explain(server, user, id, expect=DONE):
    return await asyncio.to_thread(run, server, "explain", "--json", user, "--", id,
                                   expect=expect)


async def explained(server, user, id, check):
    """The first answer for which check is true: messages and acknowledgements take their time."""
    async def look():
        answer = await explain(server, user, id, expect=None)
        return answer if check(answer) else None
    return await eventually_async(look, "explained")


def hearers(redis, channel):
    return redis.client.pubsub_numsub(channel)[0][1]


def known(answer):
    return answer.body["known"]


# ---- delivered ----------------------------------------------------------------------------------


async def test_delivered_to_two_devices_on_two_workers(redis, server, user):
    a, b = await on_worker(server, user, 0), await on_worker(server, user, 1)
    body = message("BUDGET_ALERT", user)
    produce(redis, user, body)
    for client in (a, b):
        assert (await client.next())["id"] == body["id"]
    answer = await explained(server, user, body["id"], lambda x: known(x) and all(
        d["tcp_acknowledged"] for d in x.body["devices"]))
    assert answer.body["known"] is True
    assert answer.body["stored"]["position"] == 0 and answer.body["stored"]["count"] == 1
    assert answer.body["stored"]["type"] == "BUDGET_ALERT"
    assert sorted(p["worker"] for p in answer.body["published"]) == [0, 1]
    assert all(p["fate"] == "received" and p["detail"] == 1 for p in answer.body["published"])
    for client in (a, b):
        device = answer.device(client)
        assert device["outcome"] == "delivered" and device["source"] == "queued"
        assert device["worker"] == worker_of(client) and device["open"] is True
        assert device["sent_at"] >= device["queued_at"] >= device["connected_at"]
        assert device["bytes"] > len(json.dumps(body)) and device["times_written"] == 1
        assert "acknowledged by TCP" in device["verdict"]
    text = table(server, user, body["id"]).out
    assert "at position 0 of 1" in text
    assert text.count("delivered at") == 2 and connection(a) in text and connection(b) in text
    await a.close()
    await b.close()


async def test_a_device_that_left_is_still_explained(redis, server, user):
    a = await Client.attach(server, user)
    body = message(user=user)
    produce(redis, user, body)
    await a.next()
    await a.close()
    answer = await explained(server, user, body["id"],
                             lambda x: x.body["devices"][0]["closed_at"] is not None)
    device = answer.device(a)
    assert device["open"] is False and device["outcome"] == "delivered"
    assert device["tcp_acknowledged"] is True and device["close"] == "client"


async def test_ack_and_read_marks_are_shown(redis, server, user):
    a = await Client.attach(server, user)
    first, second = message(user=user), message(user=user)
    produce(redis, user, first, second)
    await a.take(2)
    await a.send({"type": "ack", "payload": {"last_id": second["id"]}})
    await a.command("mark_notification_read", {"notification_ids": [first["id"]]})
    answer = await explain(server, user, second["id"])
    assert answer.device(a)["acked_at"] and not answer.device(a)["read_at"]
    assert answer.body["stored"]["acked"] is True and answer.body["stored"]["read"] is False
    answer = await explain(server, user, first["id"])
    assert answer.device(a)["read_at"] and not answer.device(a)["acked_at"]
    assert answer.body["stored"]["acked"] is True, "what is older than the acked one is acked"
    assert answer.body["stored"]["read"] is True and answer.body["stored"]["position"] == 1
    assert "marks      read, acknowledged" in table(server, user, first["id"]).out
    await a.close()


# ---- not delivered, and why ---------------------------------------------------------------------


async def test_filtered(redis, server, user):
    a = await Client.attach(server, user, query={"types": "GOAL_ACHIEVED"})
    body = message("BUDGET_ALERT", user)
    produce(redis, user, body, other := message("GOAL_ACHIEVED", user))
    assert (await a.next())["id"] == other["id"]
    answer = await explain(server, user, body["id"])
    assert answer.device(a)["outcome"] == "filtered"
    assert answer.device(a)["verdict"] == "not sent: filtered by its types"
    await a.close()


async def test_a_repeat_is_shown_as_one(redis, server, user):
    a = await Client.attach(server, user)
    body = message(user=user)
    produce(redis, user, body)
    publish(redis, user, body)
    publish(redis, user, other := message(user=user))
    assert [m["id"] for m in await a.take(2)] == [body["id"], other["id"]]
    answer = await explain(server, user, body["id"])
    assert [p["fate"] for p in answer.body["published"]] == ["received", "duplicate"]
    assert answer.device(a)["times_written"] == 1
    assert "not relayed" in table(server, user, body["id"]).out
    await a.close()


async def test_replayed_to_a_device_that_resumed(redis, server, user):
    a = await Client.attach(server, user)
    first = message(user=user)
    produce(redis, user, first)
    await a.next()
    await a.close()
    await explained(server, user, first["id"], lambda x: x.device(a)["closed_at"])
    await eventually_async(lambda: not hearers(redis, "ws:user:" + user), "nobody hears")
    second = message(user=user)
    produce(redis, user, second)
    b = await Client.attach(server, user, query={"last_id": first["id"]})
    assert (await b.next())["id"] == second["id"]
    answer = await explain(server, user, second["id"])
    device = answer.device(b)
    assert device["outcome"] == "delivered" and device["source"] == "replayed"
    assert device["verdict"].startswith("replayed from the list at ")
    assert answer.body["published"] == [], "nobody was there to hear it"
    assert connection(a) not in [d["connection"] for d in answer.body["devices"]]
    answer = await explain(server, user, first["id"])
    assert answer.device(a)["outcome"] == "delivered"
    assert answer.device(b)["outcome"] == "later"
    await b.close()


async def test_repaired_after_the_link_was_lost(make_server, make_redis, user):
    redis = make_redis()
    server = make_server(redis, workers="1")
    a = await Client.attach(server, user)
    for link in redis.client.client_list(_type="pubsub"):
        redis.client.client_kill_filter(_id=link["id"])
    body = message(user=user)
    store(redis, user, body)
    assert (await a.next())["id"] == body["id"]
    answer = await explain(server, user, body["id"])
    assert answer.device(a)["source"] == "repaired"
    assert "link-lost" in answer.fates() and "link-back" in answer.fates()
    await a.close()


async def test_an_offline_users_message_waits_in_the_list(redis, server, user):
    body = message(user=user)
    produce(redis, user, body)
    answer = await explain(server, user, body["id"])
    assert answer.body["known"] is True and answer.body["devices"] == []
    assert answer.body["stored"]["listed"] is True
    assert "it is in the list for those that come" in table(server, user, body["id"]).out


async def test_stored_only_while_a_device_is_there(redis, server, user):
    a = await Client.attach(server, user)
    body = message(user=user)
    store(redis, user, body)
    await a.nothing(0.1)
    answer = await explain(server, user, body["id"])
    assert answer.body["published"] == []
    assert answer.device(a)["outcome"] == "unknown" and answer.device(a)["open"] is True
    assert "no live copy was seen" in table(server, user, body["id"]).out
    await a.close()


async def test_published_only(redis, server, user):
    a = await Client.attach(server, user)
    older, body = message(user=user, at=-5), message(user=user)
    publish(redis, user, body)
    await a.next()
    answer = await explain(server, user, body["id"])
    assert answer.body["stored"]["listed"] is False
    assert answer.device(a)["outcome"] == "delivered"
    store(redis, user, older)
    assert "it was only published, or taken out" in table(server, user, body["id"]).out
    await a.close()


async def test_trimmed_after_it_was_replayed(redis, server, user):
    body = message(user=user)
    store(redis, user, body)
    a = await Client.attach(server, user)
    assert (await a.next())["id"] == body["id"]
    store(redis, user, message(user=user), size=1)
    answer = await explain(server, user, body["id"])
    assert answer.body["stored"]["listed"] is False
    assert answer.device(a)["source"] == "replayed"
    assert "not any more: trimmed or expired" in table(server, user, body["id"]).out
    await a.close()


async def test_a_broadcast(redis, server, user):
    a = await Client.attach(server, user)
    b = await Client.attach(server, user, query={"types": "GOAL_ACHIEVED"})
    body = message("SYSTEM_ALERT", "system")
    broadcast(redis, body)
    assert (await a.next())["id"] == body["id"]
    broadcast(redis, other := message("GOAL_ACHIEVED", "system"))
    assert (await b.next())["id"] == other["id"]  # its worker has heard both
    answer = await explain(server, user, body["id"])
    assert {p["fate"] for p in answer.body["published"]} == {"broadcast"}
    assert answer.device(a)["outcome"] == "broadcast"
    assert answer.device(b)["outcome"] == "filtered"
    assert "no: broadcasts are not" in table(server, user, body["id"]).out
    await a.close()
    await b.close()


def stalled(server, user):
    """A device that says hello and reads no more, with little room in its socket."""
    family, where = server.address()
    s = socket.socket(family)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.settimeout(TIMEOUT)
    s.connect(where)
    s.sendall(("GET /ws?token=%s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
               "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
               "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
               % harness.token(user)).encode())
    got = b""
    while b"FULL_SYNC" not in got:
        got += s.recv(1024)
    return s


async def test_a_slow_reader(redis, make_server, user):
    server = make_server(workers="1", send_buffer_limit="64k")
    s = stalled(server, user)
    bodies = [message(user=user, payload={"x": "y" * 60000}) for _ in range(120)]
    for body in bodies:
        publish(redis, user, body)
    last = await explained(server, user, bodies[-1]["id"], known)
    assert last.outcomes() == ["lagging"]
    assert "reads too slowly" in last.body["devices"][0]["verdict"]
    assert (await explain(server, user, bodies[0]["id"])).outcomes() == ["delivered"]
    seen = set()
    for body in bodies[1:-1:4]:
        answer = await explain(server, user, body["id"])
        device = answer.body["devices"][0]
        seen.add((device["outcome"], device["tcp_acknowledged"]))
    assert ("delivered", False) in seen, seen  # written, and the peer's window is shut
    s.close()


async def test_conflated(make_redis, make_server, user):
    redis = make_redis()
    server = make_server(redis, workers="1", send_buffer_limit="64k")
    s = stalled(server, user)

    def waiting():
        records = server.ask("explain %s x" % user)["records"]
        return sum(r["detail"] for r in records if r["fate"] == "open")

    def received():
        return server.stats()["statistics"]["messages"]["messages_received"]

    before = received()
    for sent in range(1, 3000):  # between half the limit and the limit messages conflate
        publish(redis, user, message(user=user, payload={"x": "y" * 20000}))
        harness.eventually(lambda: received() == before + sent, "it came")
        if waiting() > 36000:
            break
    old, new = (message("BALANCE_UPDATE", user, {"account_id": "a"}) for _ in range(2))
    publish(redis, user, old)
    publish(redis, user, new)
    assert (await explained(server, user, new["id"], known)).outcomes() == ["waiting"]
    answer = await explain(server, user, old["id"])
    assert answer.outcomes() == ["conflated"]
    assert "replaced by a newer message of its key" in answer.body["devices"][0]["verdict"]
    s.close()


# ---- what nobody knows --------------------------------------------------------------------------


async def test_an_unknown_id(server, user):
    answer = await explain(server, user, "never-seen", expect=FAILED)
    assert answer.body["known"] is False and answer.body["devices"] == []
    assert "nobody knows this message" in answer.err
    assert "message    never-seen" in table(server, user, "never-seen", expect=FAILED).out


async def test_another_users_message_is_not_known(redis, server, user):
    other = unique()
    body = message(user=other)
    a = await Client.attach(server, other)
    produce(redis, other, body)
    await a.next()
    await explain(server, user, body["id"], expect=FAILED)
    await a.close()


@pytest.mark.parametrize("words", [[], ["alice"], ["alice", "x", "y"], ["alice", ""], ["", "x"],
                                   ["alice", "x" * 1025], ["u" * 257, "x"], ["alice", "x", "--no"]])
def test_usage(server, words):
    run(server, "explain", *words, expect=USAGE)


ODD = ["-1", "--json", "a b", "100%", "%41", "ä€\U0001f600", "\"quoted\"\\", "x" * 1024, "\x01\x7f",
       "tab\there", "a/b?c&d=e#f", "'; DROP TABLE", "{user_id}"]


@pytest.mark.parametrize("odd", ODD)
async def test_ids_with_odd_characters(redis, server, user, odd):
    a = await Client.attach(server, user)
    body = message(user=user, id=odd)
    produce(redis, user, body)
    assert (await a.next())["id"] == odd
    answer = await explain(server, user, odd)
    assert answer.body["id"] == odd and answer.body["stored"]["position"] == 0
    assert answer.device(a)["outcome"] == "delivered"
    text = table(server, user, odd).out
    assert "\x01" not in text and "\x7f" not in text and "\t" not in text
    await a.close()


async def test_a_user_with_odd_characters(redis, server):
    user = unique("ü %41 {x}\"\\")
    a = await Client.attach(server, user)
    body = message(user=user)
    produce(redis, user, body)
    await a.next()
    assert (await explain(server, user, body["id"])).device(a)["outcome"] == "delivered"
    await a.close()


# ---- instances, workers, what is away -----------------------------------------------------------


async def test_the_other_instances_devices_are_shown(redis, server, make_server, user):
    other = make_server()
    a, b = await Client.attach(server, user), await Client.attach(other, user)
    body = message(user=user)
    produce(redis, user, body)
    await a.next()
    await b.next()
    for asked in (server, other):
        answer = await explain(asked, user, body["id"])
        assert len(answer.body["server"]["instances"]) == 2
        assert {d["instance"] for d in answer.body["devices"]} == {
            s.status()["instance_id"] for s in (server, other)}
        assert answer.device(a)["outcome"] == answer.device(b)["outcome"] == "delivered"
        assert answer.device(a)["open"] and answer.device(b)["open"]
        others = answer.body["server"]["others"]
        assert others["links"] == others["answered"] == 2 and others["error"] is None
        assert "note" not in table(asked, user, body["id"]).out
    await a.close()
    await b.close()


async def test_an_instance_that_does_not_answer_is_told_of(redis, server, make_server, user):
    other = make_server(workers="1")
    a = await Client.attach(server, user)
    body = message(user=user)
    produce(redis, user, body)
    await a.next()
    other.signal(signal.SIGSTOP)  # the master; its worker still hears the question
    try:
        answer = await explain(server, user, body["id"])
    finally:
        other.signal(signal.SIGCONT)
    others = answer.body["server"]["others"]
    assert (others["links"], others["answered"]) == (1, 0)
    assert answer.device(a)["outcome"] == "delivered"
    await a.close()


async def test_a_worker_that_was_killed(make_redis, make_server, user):
    redis = make_redis()
    server = make_server(redis, workers="1")
    a = await Client.attach(server, user)
    body = message(user=user)
    produce(redis, user, body)
    await a.next()
    await explained(server, user, body["id"], lambda x: x.device(a)["tcp_acknowledged"])
    await asyncio.to_thread(server.kill_worker)
    answer = await explain(server, user, body["id"])
    device = answer.device(a)
    assert device["outcome"] == "delivered" and device["open"] is False
    assert device["tcp_acknowledged"] is None and "its worker ended" in device["verdict"]
    await a.close()


async def test_a_hung_worker_does_not_hold_the_answer_back(make_server, make_redis, user):
    redis = make_redis()
    server = make_server(redis)
    a = await on_worker(server, user, 0)
    body = message(user=user)
    produce(redis, user, body)
    await a.next()
    pids = {w["slot"]: w["pid"] for w in server.status()["workers"]}
    os.kill(pids[1], signal.SIGSTOP)
    try:
        answer = await explain(server, user, body["id"])
    finally:
        os.kill(pids[1], signal.SIGCONT)
    assert answer.body["server"]["workers"] == {"asked": 2, "answered": 1, "silent": [1]}
    assert answer.device(a)["outcome"] == "delivered"
    await a.close()


async def test_with_the_server_away_the_list_is_told(redis, tmp_path, user):
    config = tmp_path / "belfry.conf"
    config.write_text("redis-url = %s\ncontrol-socket = %s\n"
                      % (redis.url, tmp_path / "control.sock"))
    body = message(user=user)
    store(redis, user, body)
    answer = await explain(config, user, body["id"])
    assert answer.body["server"] is None and answer.body["stored"]["position"] == 0
    assert "no server runs" in answer.err
    assert "note       the server could not be asked" in table(config, user, body["id"]).out
    await explain(config, user, "never-seen", expect=FAILED)


async def delivered_before_redis_went(make_redis, make_server, user):
    """Server, device, and the message it was given; Redis is away since."""
    redis = make_redis()
    server = make_server(redis, workers="1")
    a = await Client.attach(server, user)
    body = message(user=user)
    produce(redis, user, body)
    await a.next()
    redis.kill()
    await eventually_async(lambda: not server.status()["totals"]["redis"]["redis_command_up"],
                           "the link is down")
    return server, a, body


async def test_with_redis_away_the_traces_are_told(make_redis, make_server, user):
    server, a, body = await delivered_before_redis_went(make_redis, make_server, user)
    answer = await explain(server, user, body["id"])
    assert answer.body["stored"] is None and answer.device(a)["outcome"] == "delivered"
    assert answer.body["server"]["others"]["error"]
    assert "not known: Redis could not be asked" in table(server, user, body["id"]).out
    await a.close()


def test_with_both_away_it_fails(tmp_path):
    config = tmp_path / "belfry.conf"
    config.write_text("redis-url = unix://%s\ncontrol-socket = %s\n"
                      % (tmp_path / "no.sock", tmp_path / "control.sock"))
    run(str(config), "explain", "alice", "x", expect=FAILED)


async def test_trace_size_zero_records_nothing_and_still_shows_who_is_there(redis, make_server,
                                                                            user):
    server = make_server(trace_size="0")
    a = await Client.attach(server, user)
    body = message(user=user)
    produce(redis, user, body)
    await a.next()
    answer = await explain(server, user, body["id"])
    assert answer.body["server"]["trace_size"] == 0 and answer.body["stored"]["listed"] is True
    own = answer.body["server"]["instance_id"]
    assert [r["fate"] for r in answer.body["records"] if r["instance"] == own] == ["open"]
    assert answer.device(a)["outcome"] == "unknown"
    assert "trace-size is 0 here" in table(server, user, body["id"]).out
    publish(redis, user, dict(body, id="only-published"))
    await a.next()
    await explain(server, user, "only-published", expect=FAILED)
    await a.close()


async def test_a_small_ring_forgets(redis, make_server, user):
    server = make_server(workers="1", trace_size="64")
    a = await Client.attach(server, user)
    bodies = [message(user=user) for _ in range(60)]
    for body in bodies:
        publish(redis, user, body)
    await a.take(60)
    await explain(server, user, bodies[0]["id"], expect=FAILED)
    assert (await explain(server, user, bodies[-1]["id"])).device(a)["outcome"] == "delivered"
    await a.close()


# ---- the request channel ------------------------------------------------------------------------


NONSENSE = [b"", b"x", b"{}", b"[1]", b"\xff\xfe", b"{\"v\":1}", b"null", b"{" * 5000,
            json.dumps({"v": 1, "ask": "explain", "instance": "x\ny", "worker": 0,
                        "request": "1", "user": "u", "id": "i"}).encode(),
            json.dumps({"v": 1, "ask": "explain", "instance": "x" * 5000, "worker": 0,
                        "request": "1", "user": "u", "id": "i"}).encode(),
            json.dumps({"v": 1, "ask": "explain", "instance": "x", "worker": 1e99,
                        "request": "1", "user": "u", "id": "i" * 100000}).encode()]


async def test_nonsense_on_the_request_channels_does_no_harm(redis, server, user):
    a = await Client.attach(server, user)
    instance = server.status()["instance_id"]
    pids = server.worker_pids()
    for text in NONSENSE:
        redis.client.publish("belfry:request", text)
        for slot in range(2):
            redis.client.publish("belfry:answer:%s:%d" % (instance, slot), text)
    body = message(user=user)
    produce(redis, user, body)
    await a.next()
    assert (await explain(server, user, body["id"])).device(a)["outcome"] == "delivered"
    assert server.worker_pids() == pids
    await a.close()


async def test_a_question_is_answered_as_the_manual_says_and_not_too_often(make_redis, make_server,
                                                                           user):
    redis = make_redis()
    server = make_server(redis)
    a = await Client.attach(server, user)
    body = message(user=user)
    produce(redis, user, body)
    await a.next()
    heard = redis.client.pubsub(ignore_subscribe_messages=True)
    heard.subscribe("belfry:answer:somebody:7")
    await eventually_async(lambda: hearers(redis, "belfry:answer:somebody:7"), "subscribed")
    question = {"v": 1, "ask": "explain", "instance": "somebody", "worker": 7, "request": "ab12",
                "user": user, "id": body["id"]}
    pipe = redis.client.pipeline(transaction=False)
    for _ in range(500):
        pipe.publish("belfry:request", json.dumps(question))
    began = time.monotonic()
    pipe.execute()
    answer = json.loads((await eventually_async(lambda: heard.get_message(), "answered"))["data"])
    assert answer["request"] == "ab12" and answer["instance"] == server.status()["instance_id"]
    assert answer["v"] == 1 and answer["links"] == 2 and answer["last"] is True
    assert "queued" in [r["fate"] for r in answer["records"]]
    await asyncio.sleep(1.2)
    count = 1
    while heard.get_message():
        count += 1
    assert count <= 50 * (2 + (time.monotonic() - began) // 1), "50 in each second, at most"
    assert count < 500
    assert eventually(lambda: server.status(), "still there")
    heard.close()
    await a.close()


def test_requests_on_the_control_socket_that_are_none(server):
    for request in ("explain", "explain ", "explain a", "explain a b c", "explain %zz b",
                    "explain a %00", "explain %41%0a b"):
        answer = server.ask(request)
        assert answer["ok"] is False and answer["error"], (request, answer)
    assert server.ask("explain alice x")["ok"] is True
    assert server.ask("status")["ok"] is True


# ---- over HTTP ----------------------------------------------------------------------------------


async def over_http(server, user, id):
    answer = await asyncio.to_thread(
        server.http, "GET", "/ws/explain?user=%s&id=%s" % (user, id),
        token=token("root", admin=True))
    assert answer.status == 200, answer
    return answer.json


def lines_of(text):
    """What belfryctl prints, as the lines of the answer over HTTP."""
    lines, about = [], ""
    for line in text.splitlines():
        about = line[:11].strip() or about
        lines.append({"about": about, "text": line[11:]})
    return lines


async def test_every_instance_tells_over_http_what_belfryctl_tells(redis, server, make_server,
                                                                   user):
    other = make_server()
    a, b = await Client.attach(server, user), await Client.attach(other, user)
    body = message(user=user)
    produce(redis, user, body)
    for c in (a, b):
        assert (await c.next())["id"] == body["id"]
    await explained(server, user, body["id"], lambda answer: all(
        d["outcome"] == "delivered" and d["tcp_acknowledged"] for d in answer.body["devices"]))
    for instance in (server, other):
        told = await over_http(instance, user, body["id"])
        printed = await asyncio.to_thread(table, instance, user, body["id"])
        assert told["instance_id"] == instance.status()["instance_id"] and told["known"]
        assert told["stored"]["position"] == 0
        assert sorted(d["connection"] for d in told["devices"]) == sorted(map(connection, (a, b)))
        assert {d["outcome"] for d in told["devices"]} == {"delivered"}
        assert len(told["server"]["instances"]) == 2
        assert told["lines"] == lines_of(printed.out)
        assert [d["verdict"] in printed.out for d in told["devices"]] == [True, True]
    for c in (a, b):
        await c.close()


async def test_over_http_with_redis_away_the_traces_are_told(make_redis, make_server, user):
    server, a, body = await delivered_before_redis_went(make_redis, make_server, user)
    told = await over_http(server, user, body["id"])
    assert told["stored"] is None and told["devices"][0]["outcome"] == "delivered"
    assert [li["text"] for li in told["lines"] if li["about"] == "note"]
    await a.close()


async def test_over_http_more_questions_than_the_master_takes_are_refused(redis, server, user):
    """Each of them is answered, whatever the answer."""
    def ask(_):
        return server.http("GET", "/ws/explain?user=%s&id=x" % user,
                           token=token("root", admin=True)).status
    statuses = await asyncio.gather(*(asyncio.to_thread(ask, i) for i in range(24)))
    assert set(statuses) <= {200, 503} and 200 in statuses
    assert (await over_http(server, user, "x"))["known"] is False
