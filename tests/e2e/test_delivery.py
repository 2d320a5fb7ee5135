"""Messages: attach, replay, resume, live, broadcast, filter, repeats, bad input (contract: Redis,
Message, What delivery promises)."""

import json
import threading

import pytest

import harness
from harness import Client, broadcast, ids, kinds, message, produce, publish, store, unique


async def attached(server, user, **query):
    return await Client.attach(server, user, query=query)


async def replay(server, user, **query):
    """(FULL_SYNC's sync, ids of what is replayed)."""
    async with await attached(server, user, **query) as c:
        missed = c.sync["sync"]["missed"]
        got = ids(await c.take(missed))
        await c.nothing()
        return c.sync["sync"], got


# ---- FULL_SYNC ----------------------------------------------------------------------------------


async def test_the_first_message_is_full_sync_in_its_full_form(server, user):
    async with await attached(server, user) as c:
        assert {"type", "timestamp", "user_id", "payload", "sync"} <= set(c.sync)
        assert c.sync["type"] == "FULL_SYNC"
        assert c.sync["timestamp"].endswith("Z")
        assert c.sync["user_id"] == user
        assert c.sync["payload"] == {}
        sync = c.sync["sync"]
        assert sync.pop("connection_id")
        assert sync == {"recovered": True, "missed": 0, "unread": 0, "last_id": None}
        await c.nothing()


async def test_full_sync_carries_the_latest_dashboard(redis, server, user):
    redis.client.set("ws:snapshot:" + user, '{"total_balance": 12.50, "x": "\\u00fc"}')
    async with await attached(server, user) as c:
        assert c.sync["payload"] == {"total_balance": 12.5, "x": "ü"}


async def test_a_snapshot_that_is_no_object_counts_as_none(redis, server, user):
    for bad in ("[1]", "{", b"\xff", "", '{"a":1} x'):
        redis.client.set("ws:snapshot:" + user, bad)
        async with await attached(server, user) as c:
            assert c.sync["payload"] == {}


async def test_connection_ids_differ(server, user):
    async with await attached(server, user) as a, await attached(server, user) as b:
        assert a.sync["sync"]["connection_id"] != b.sync["sync"]["connection_id"]


# ---- stored messages at connect -----------------------------------------------------------------


async def test_stored_messages_come_oldest_first_before_live_ones(redis, server, user):
    old = [message(user=user, payload={"n": i}) for i in range(5)]
    store(redis, user, *old)
    async with await attached(server, user) as c:
        assert c.sync["sync"]["missed"] == 5
        assert c.sync["sync"]["recovered"] is True
        assert c.sync["sync"]["last_id"] == old[-1]["id"]
        assert await c.take(5) == old
        live = message(user=user)
        produce(redis, user, live)
        assert (await c.next())["id"] == live["id"]
        await c.nothing()


async def test_without_a_position_the_newest_twenty_of_the_last_hour_come(redis, server, user):
    ancient = [message(user=user, at=-3700 - i) for i in range(3)]
    recent = [message(user=user, at=-100 + i) for i in range(30)]
    store(redis, user, *ancient, *recent)
    sync, got = await replay(server, user)
    assert got == ids(recent[10:])
    assert sync["recovered"] is True and sync["missed"] == 20


async def test_a_list_waits_for_the_link_only_where_it_may_be_ahead(redis, server, user):
    def kept():
        return server.stats()["statistics"]["messages"]["readings_kept"]

    before = kept()
    store(redis, user, *(message(user=user, at=-3600 + n) for n in range(30)))
    async with await Client.attach(server, user):
        assert kept() == before  # what is left out is old
    fresh = [message(user=user, at=n / 1000) for n in range(30)]
    store(redis, user, *fresh)
    async with await Client.attach(server, user, query={"last_id": fresh[4]["id"]}) as c:
        assert ids(await c.take(25)) == [one["id"] for one in fresh[5:]]
        assert kept() == before  # nothing is left out
    async with await Client.attach(server, user) as c:
        assert ids(await c.take(20)) == [one["id"] for one in fresh[10:]]
        assert kept() == before + 1
        publish(redis, user, fresh[9])  # it may have been on its way to be published
        assert (await c.next())["id"] == fresh[9]["id"]
        publish(redis, user, fresh[10])
        await c.nothing()


async def test_entries_older_than_the_window_do_not_come(redis, server, user):
    old = message(user=user, at=-3700)
    young = message(user=user, at=-3500)
    store(redis, user, old, young)
    assert (await replay(server, user))[1] == [young["id"]]


async def test_naive_timestamps_are_read_as_utc(redis, server, user):
    old, young = message(user=user, at=-3700), message(user=user, at=-3500)
    for one in (old, young):
        one["timestamp"] = one["timestamp"].rstrip("Z")
    store(redis, user, old, young)
    assert (await replay(server, user))[1] == [young["id"]]


async def test_a_list_reversed_by_a_janitor_comes_in_order_of_time(redis, server, user):
    sent = [message(user=user, at=-100 + 10 * i) for i in range(6)]
    for one in sent:
        redis.client.rpush("notifications:" + user, json.dumps(one))
    assert (await replay(server, user))[1] == ids(sent)


async def test_entries_that_are_no_message_are_skipped(redis, server, user):
    good = [message(user=user, payload={"n": i}) for i in range(2)]
    key = "notifications:" + user
    for entry in (json.dumps(good[0]), "{", "[1]", b"\xff\xfe", "", "null", json.dumps(good[1])):
        redis.client.lpush(key, entry)
    assert (await replay(server, user))[1] == ids(good)


async def test_a_key_of_another_kind_is_no_reason_to_fail(redis, server, user):
    redis.client.set("notifications:" + user, "a string")
    redis.client.lpush("ws:snapshot:" + user, "a list")
    async with await attached(server, user) as c:
        assert c.sync["payload"] == {}
        live = message(user=user)
        publish(redis, user, live)
        assert (await c.next())["id"] == live["id"]


# ---- resume -------------------------------------------------------------------------------------


async def test_with_last_id_all_that_is_newer_comes_even_beyond_the_replay_limit(
        redis, server, user):
    sent = [message(user=user, payload={"n": i}) for i in range(60)]
    store(redis, user, *sent)
    sync, got = await replay(server, user, last_id=sent[9]["id"])
    assert got == ids(sent[10:])
    assert sync["recovered"] is True and sync["missed"] == 50


async def test_with_the_newest_id_nothing_comes(redis, server, user):
    sent = [message(user=user) for _ in range(3)]
    store(redis, user, *sent)
    sync, got = await replay(server, user, last_id=sent[-1]["id"])
    assert got == [] and sync["recovered"] is True
    assert sync["last_id"] == sent[-1]["id"]


async def test_a_position_that_is_gone_is_told_and_the_newest_come(redis, server, user):
    sent = [message(user=user) for _ in range(25)]
    store(redis, user, *sent)
    sync, got = await replay(server, user, last_id=unique("gone"))
    assert sync["recovered"] is False
    assert got == ids(sent[5:])


async def test_last_id_is_found_whatever_is_in_it(redis, server, user):
    for odd in ("a b&c=d+e%20", "ünï-€", 'q"uo\\te', "new\nline"):
        one = unique("odd")
        first, second = message(user=one, id=odd), message(user=one)
        store(redis, one, first, second)
        sync, got = await replay(server, one, last_id=odd)
        assert sync["recovered"] is True and got == [second["id"]], odd


async def test_seen_closes_the_gap_where_producers_crossed(redis, server, user):
    # Stored A, B; published B, A: the device that left after B has B and not A.
    a, b, c = [message(user=user, payload={"n": i}) for i in range(3)]
    store(redis, user, a, b, c)
    sync, got = await replay(server, user, last_id=b["id"], seen=b["id"])
    assert got == [c["id"]]
    store(redis, user, d := message(user=user))
    # It has seen A and C but not B: B is newer than the oldest it has seen.
    sync, got = await replay(server, user, last_id=c["id"], seen=",".join([c["id"], a["id"]]))
    assert got == [b["id"], d["id"]] and sync["recovered"] is True


async def test_the_auth_frame_may_carry_the_position_too(redis, server, user):
    sent = [message(user=user) for _ in range(4)]
    store(redis, user, *sent)
    async with await Client.open(server) as c:
        await c.send({"type": "auth", "payload": {
            "token": harness.token(user), "last_id": sent[3]["id"],
            "seen": [sent[3]["id"], sent[1]["id"]]}})
        await c.expect("auth_ok")
        sync = await c.expect("FULL_SYNC")
        assert sync["sync"]["missed"] == 1
        assert (await c.next())["id"] == sent[2]["id"]
        await c.nothing()


@pytest.mark.parametrize("length", [256, 257, 4000])
async def test_a_position_may_have_a_long_id_in_the_auth_frame_too(redis, server, user, length):
    sent = [message(user=user, id=c * length) for c in "abc"]
    store(redis, user, *sent)
    for seen in ([sent[0]["id"]], sent[0]["id"]):
        async with await Client.open(server) as c:
            await c.send({"type": "auth", "payload": {
                "token": harness.token(user), "last_id": sent[1]["id"], "seen": seen}})
            await c.expect("auth_ok")
            assert (await c.expect("FULL_SYNC"))["sync"]["recovered"] is True
            assert (await c.next())["id"] == sent[2]["id"]
            await c.nothing()


async def test_what_was_acked_is_not_replayed_to_a_device_without_position(redis, server, user):
    sent = [message(user=user) for _ in range(5)]
    store(redis, user, *sent)
    async with await attached(server, user) as c:
        await c.take(5)
        await c.send({"type": "ack", "payload": {"last_id": sent[2]["id"]}})
        await c.nothing()
    sync, got = await replay(server, user)
    assert got == ids(sent[3:]) and sync["recovered"] is True
    # An explicit position is stronger.
    assert (await replay(server, user, last_id=sent[0]["id"]))[1] == ids(sent[1:])


# ---- live ---------------------------------------------------------------------------------------


async def test_a_live_message_reaches_every_device_byte_for_byte(redis, server, user):
    text = ('{ "type" : "ACCOUNT_SYNCED",\t"id":"%s", '
            '"payload":{"n":1.50e0,"big":123456789012345678901,"u":"\\u00e9\\/é€😀"}, '
            '"extra":[null, true ] }' % unique())
    async with await attached(server, user) as a, await attached(server, user) as b:
        publish(redis, user, text)
        assert await a.raw() == text
        assert await b.raw() == text


async def test_devices_on_different_workers_all_hear_it(redis, server, user):
    devices = []
    used = set()
    try:
        while len(used) < 2 and len(devices) < 30:  # the kernel chooses between their sockets
            devices.append(await attached(server, user))
            used = {w["slot"] for w in server.stats()["workers"] if w["active_connections"]}
        assert len(used) == 2, "so many connections met only one worker of two"
        live = message(user=user)
        assert publish(redis, user, live) == 2
        for c in devices:
            assert (await c.next())["id"] == live["id"]
    finally:
        for c in devices:
            await c.close()


async def test_other_users_hear_nothing(redis, server, user):
    async with await attached(server, user) as c, await attached(server, user + "2") as other:
        produce(redis, user, message(user=user))
        await c.expect("NOTIFICATION")
        await other.nothing()


async def test_a_broadcast_reaches_everybody_on_every_worker(redis, server):
    devices = [await attached(server, unique()) for _ in range(6)]
    try:
        one = message("SYSTEM_ALERT", user="system")
        broadcast(redis, one)
        for c in devices:
            got = await c.next()
            assert got["id"] == one["id"] and got["channel"] == "ws:broadcast"
    finally:
        for c in devices:
            await c.close()


async def test_types_outside_the_table_pass_untouched(redis, server, user):
    async with await attached(server, user) as c:
        for kind in ("category_suggestion", "Net_Worth_Update", "x" * 300, "ünï"):
            produce(redis, user, message(kind, user=user))
            assert (await c.next())["type"] == kind
        publish(redis, user, '{"data":{"no":"type"}}')
        assert await c.raw() == '{"data":{"no":"type"}}'
        publish(redis, user, "{}")
        assert await c.raw() == "{}"


async def test_a_large_message_passes(redis, server, user):
    one = message(user=user, payload={"text": "ü" * 100000})
    async with await attached(server, user) as c:
        produce(redis, user, one)
        assert (await c.next())["payload"] == one["payload"]


async def test_order_of_publication_is_kept(redis, server, user):
    sent = [message(user=user, payload={"n": i}) for i in range(500)]
    async with await attached(server, user) as c:
        pipe = redis.client.pipeline(transaction=False)
        for one in sent:
            pipe.publish("ws:user:" + user, json.dumps(one))
        pipe.execute()
        assert ids(await c.take(500)) == ids(sent)


async def test_a_repeated_id_is_delivered_once(redis, server, user):
    one, two = message(user=user), message(user=user)
    async with await attached(server, user) as c:
        produce(redis, user, one)
        produce(redis, user, one)
        publish(redis, user, two)
        publish(redis, user, one)
        publish(redis, user, two)
        assert ids(await c.take(2)) == [one["id"], two["id"]]
        await c.nothing()


async def test_messages_without_id_are_not_taken_for_repeats(redis, server, user):
    async with await attached(server, user) as c:
        for n in (1, 2):
            publish(redis, user, {"type": "NOTIFICATION", "payload": {"n": n}})
            assert (await c.next())["payload"] == {"n": n}


async def test_an_id_comes_once_though_its_user_has_listed_and_live_copies(redis, server, user):
    one = message(user=user)
    store(redis, user, one)
    async with await attached(server, user) as c:
        assert (await c.next())["id"] == one["id"]
        publish(redis, user, dict(one, timestamp=harness.utc()))
        await c.nothing()


async def test_every_message_comes_once_and_in_order_to_devices_that_attach_meanwhile(
        redis, server, user):
    """The gap between subscribing and reading the list, under fire."""
    total = 300
    sent = [message(user=user, payload={"n": i}) for i in range(total)]
    begin = threading.Event()

    def fire():
        begin.wait(harness.TIMEOUT)
        produce(redis, user, *sent)

    thread = threading.Thread(target=fire)
    thread.start()
    devices = []
    try:
        begin.set()
        for _ in range(12):
            devices.append(await attached(server, user))
        last = sent[-1]["id"]
        for c in devices:
            got = [m["payload"]["n"] for m in await c.until(lambda m: m["id"] == last)]
            assert got == list(range(got[0], total)), "a gap or a repeat: %r" % got
            assert c.sync["sync"]["missed"] <= 20
    finally:
        thread.join()
        for c in devices:
            await c.close()


async def test_a_device_that_leaves_and_resumes_gets_each_message_once(redis, server, user):
    total = 400
    sent = [message(user=user, payload={"n": i}) for i in range(total)]
    ahead = threading.Semaphore(60)  # fewer than the list holds

    def fire():
        for one in sent:
            if not ahead.acquire(timeout=harness.TIMEOUT):
                return
            produce(redis, user, one)

    thread = threading.Thread(target=fire)
    got, last = [], None
    c = await attached(server, user)
    thread.start()
    try:
        while not got or got[-1] != total - 1:
            for _ in range(25):
                one = await c.next()
                got.append(one["payload"]["n"])
                last = one["id"]
                ahead.release()
                if got[-1] == total - 1:
                    break
            else:
                await c.vanish()
                c = await attached(server, user, last_id=last)
                assert c.sync["sync"]["recovered"] is True
        assert got == list(range(total))
    finally:
        thread.join()
        await c.close()


# ---- filter -------------------------------------------------------------------------------------


async def test_types_in_the_query_filter_stored_live_and_broadcast(redis, server, user):
    def trio(**how):
        return [message(kind, **how) for kind in ("BUDGET_ALERT", "NOTIFICATION", "goal_achieved")]
    stored = trio(user=user)
    store(redis, user, *stored)
    async with await attached(server, user, types="budget_alert, GOAL_ACHIEVED") as c:
        assert ids(await c.take(2)) == [stored[0]["id"], stored[2]["id"]]
        live = trio(user=user)
        produce(redis, user, *live)
        assert ids(await c.take(2)) == [live[0]["id"], live[2]["id"]]
        for one in (shouted := trio(user="system")):
            broadcast(redis, one)
        assert ids(await c.take(2)) == [shouted[0]["id"], shouted[2]["id"]]
        publish(redis, user, '{"no":"type"}')
        await c.nothing()


async def test_the_filter_is_the_devices_own(redis, server, user):
    async with await attached(server, user, types="A") as a, await attached(server, user) as b:
        one, two = message("B", user=user), message("A", user=user)
        produce(redis, user, one, two)
        assert ids(await b.take(2)) == [one["id"], two["id"]]
        assert (await a.next())["id"] == two["id"]
        await a.nothing()


# ---- what is not relayed ------------------------------------------------------------------------


@pytest.mark.parametrize("counter, payload", [
    ("messages_invalid_json", "{"),
    ("messages_invalid_json", ""),
    ("messages_invalid_json", '{"a":1}{"b":2}'),
    ("messages_invalid_json", '{"a":01}'),
    ("messages_invalid_json", "{'a':1}"),
    ("messages_invalid_json", '\ufeff{"a":1}'),
    ("messages_invalid_json", '{"a":"line\nend"}'),
    ("messages_invalid_json", '{"a":NaN}'),
    ("messages_invalid_json", '{"a":' * 5000),
    ("messages_invalid_json", '{"a":' * 5000 + "1" + "}" * 5000),
    ("messages_invalid_utf8", b'{"a":"\xff"}'),
    ("messages_invalid_utf8", b'{"a":"\xed\xa0\x80"}'),
    ("messages_invalid_utf8", b'{"\xc0\xaf":1}'),
    ("messages_not_object", "[]"),
    ("messages_not_object", '"ping"'),
    ("messages_not_object", "12"),
    ("messages_not_object", "null"),
])
async def test_what_is_no_json_object_in_utf8_is_counted_and_not_relayed(
        redis, server, user, counter, payload):
    before = server.stats()["statistics"]["messages"][counter]
    async with await attached(server, user) as c:
        publish(redis, user, payload)
        broadcast(redis, payload)
        good = message(user=user)
        publish(redis, user, good)
        assert (await c.next())["id"] == good["id"]
    after = server.stats()["statistics"]["messages"][counter]
    assert after >= before + 2


async def test_what_is_refused_is_logged_with_its_channel_and_without_its_payload(
        redis, make_server, user):
    server = make_server(workers="1")
    async with await attached(server, user) as c:
        publish(redis, user, '{"secret-of-mine": ')
        server.wait_log("ws:user:" + user)
        await c.nothing()
        # Repeated lines are limited: a producer gone mad fills no disk.
        for _ in range(500):
            publish(redis, user, "{")
        await c.nothing()
    text = server.log_text()
    assert "secret-of" not in text
    assert text.count("ws:user:" + user) < 100
    assert server.stats()["statistics"]["process"]["log_lines_suppressed"] >= 0


# ---- counting -----------------------------------------------------------------------------------


async def test_unread_counts_stored_entries_that_are_not_marked_read(redis, server, user):
    sent = [message(user=user) for _ in range(4)]
    store(redis, user, *sent)
    redis.client.sadd("notifications:read:" + user, sent[0]["id"], sent[2]["id"], "unknown")
    async with await attached(server, user) as c:
        assert c.sync["sync"]["unread"] == 2


async def test_the_subscription_ends_with_the_last_device(redis, server, user):
    def subscribers():
        return dict(redis.client.pubsub_numsub("ws:user:" + user)).popitem()[1]
    a = await attached(server, user)
    b = await attached(server, user)
    assert subscribers() >= 1
    await a.close()
    await b.nothing()
    await b.close()
    await harness.eventually_async(lambda: subscribers() == 0, "the subscription ends")


async def test_templates_of_channels_and_keys_are_options(redis, make_server, user):
    server = make_server(user_channel="app:{user_id}:live", broadcast_channel="app:all",
                         notifications_key="app:{{user_id}}:list",
                         snapshot_key="app:{{user_id}}:snapshot")
    one, two, three = message(user=user), message(user=user), message(user=user)
    redis.client.lpush("app:{%s}:list" % user, json.dumps(one))
    redis.client.set("app:{%s}:snapshot" % user, '{"a":1}')
    async with await attached(server, user) as c:
        assert c.sync["payload"] == {"a": 1}
        assert (await c.next())["id"] == one["id"]
        redis.client.publish("app:%s:live" % user, json.dumps(two))
        redis.client.publish("app:all", json.dumps(three))
        assert set(ids(await c.take(2))) == {two["id"], three["id"]}


async def test_all_types_of_the_table_pass(redis, server, user):
    table = ("NEW_TRANSACTION TRANSACTION_UPDATED TRANSACTION_DELETED BULK_TRANSACTIONS_IMPORTED "
             "BUDGET_ALERT BUDGET_UPDATED GOAL_PROGRESS_UPDATE GOAL_ACHIEVED ACCOUNT_SYNCED "
             "ACCOUNT_SYNC_ERROR BALANCE_UPDATE AI_INSIGHT_GENERATED SPENDING_PATTERN_DETECTED "
             "DASHBOARD_UPDATE FULL_SYNC NOTIFICATION SYSTEM_ALERT PING PONG").split()
    both = [kind for upper in table for kind in (upper, upper.lower())]
    async with await attached(server, user) as c:
        produce(redis, user, *[message(kind, user=user) for kind in both])
        assert kinds(await c.take(len(both))) == both
