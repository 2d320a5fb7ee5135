"""What a client may say (contract: GET /ws, commands)."""

import json

import pytest

import harness
from harness import Client, RawClient, ids, message, produce, store, token


async def test_the_bare_text_ping_gets_the_bare_text_pong(server, user):
    async with await Client.attach(server, user) as c:
        await c.send("ping")
        assert await c.raw() == "pong"


@pytest.mark.parametrize("upper", [False, True])
async def test_ping_echoes_what_it_was_given(server, user, upper):
    async with await Client.attach(server, user) as c:
        reply = await c.command("PING" if upper else "ping",
                                {"client_time": "2026-01-01T00:00:00Z", "sent_at": 1234.5})
        assert reply["type"] == ("PONG" if upper else "pong")
        assert reply["timestamp"]
        payload = reply["payload"]
        assert payload.pop("server_time").endswith("Z")
        assert payload == {"client_time": "2026-01-01T00:00:00Z", "latency_ms": 1234.5}
        reply = await c.command("ping")
        assert reply["payload"]["client_time"] is None and reply["payload"]["latency_ms"] is None


async def test_subscribe_starts_a_list_and_unsubscribe_takes_from_it(redis, server, user):
    async with await Client.attach(server, user) as c:
        reply = await c.command("subscribe", {"types": ["budget_alert", "NOTIFICATION"]})
        assert reply["type"] == "subscription_confirmed"
        assert reply["payload"] == {"subscribed_types": ["budget_alert", "NOTIFICATION"],
                                    "user_id": user}
        sent = [message(kind, user=user)
                for kind in ("BUDGET_ALERT", "GOAL_ACHIEVED", "notification")]
        produce(redis, user, *sent)
        assert ids(await c.take(2)) == [sent[0]["id"], sent[2]["id"]]
        reply = await c.command("unsubscribe", {"types": ["Notification"]})
        assert reply["type"] == "unsubscription_confirmed"
        assert reply["payload"] == {"unsubscribed_types": ["Notification"],
                                    "remaining_subscriptions": ["budget_alert"]}
        produce(redis, user, message("NOTIFICATION", user=user), last := message("BUDGET_ALERT"))
        assert (await c.next())["id"] == last["id"]
        await c.nothing()


async def test_unsubscribe_without_a_list_excludes(redis, server, user):
    async with await Client.attach(server, user) as c:
        reply = await c.command("UNSUBSCRIBE", {"types": ["balance_update"]})
        assert reply["type"] == "UNSUBSCRIPTION_CONFIRMED"
        assert reply["payload"]["remaining_subscriptions"] == []
        produce(redis, user, message("BALANCE_UPDATE"), other := message("GOAL_ACHIEVED"))
        assert (await c.next())["id"] == other["id"]
        await c.nothing()


@pytest.mark.parametrize("payload", [None, {}, {"types": "A"}, {"types": [1]}, {"types": [""]},
                                     {"types": ["x" * 65]}, {"types": {"A": 1}},
                                     {"types": ["T%d" % i for i in range(65)]}])
@pytest.mark.parametrize("command", ["subscribe", "unsubscribe"])
async def test_a_bad_list_of_types_is_an_error_and_changes_nothing(
        redis, server, user, command, payload):
    async with await Client.attach(server, user) as c:
        reply = await c.command(command, payload)
        assert reply["type"] == "error" and reply["payload"]["code"] == "INVALID_PAYLOAD"
        produce(redis, user, message("ANYTHING"))
        await c.expect("ANYTHING")


async def test_dashboard_refresh_sends_full_sync_and_then_says_so(redis, server, user):
    async with await Client.attach(server, user) as c:
        redis.client.set("ws:snapshot:" + user, '{"total_balance":5}')
        sync = await c.command("dashboard_refresh")
        assert sync["type"] == "full_sync" and sync["payload"] == {"total_balance": 5}
        done = await c.next()
        assert done["type"] == "dashboard_refresh_completed"
        assert done["payload"]["refreshed_at"].endswith("Z")
        assert (await c.command("DASHBOARD_REFRESH"))["type"] == "FULL_SYNC"
        assert (await c.next())["type"] == "DASHBOARD_REFRESH_COMPLETED"


async def test_read_marks_reach_every_device_and_are_remembered(redis, server, user):
    sent = [message(user=user) for _ in range(3)]
    store(redis, user, *sent)
    marked = [sent[0]["id"], sent[2]["id"]]
    devices = [await Client.attach(server, user) for _ in range(6)]  # on both workers
    try:
        for c in devices:
            assert c.sync["sync"]["unread"] == 3
            await c.take(3)
        reply = await devices[0].command("mark_notification_read", {"notification_ids": marked})
        assert reply["type"] == "notifications_marked_read"
        assert reply["payload"]["marked_read"] == marked
        assert reply["payload"]["marked_at"].endswith("Z")
        for c in devices[1:]:
            heard = await c.expect("notifications_marked_read")
            assert heard["type"] == reply["type"]
            assert heard["payload"]["marked_read"] == marked
        for c in devices:
            await c.nothing()
    finally:
        for c in devices:
            await c.close()
    assert redis.client.smembers("notifications:read:" + user) == {m.encode() for m in marked}
    assert 0 < redis.client.ttl("notifications:read:" + user) <= 604800
    async with await Client.attach(server, user) as c:
        assert c.sync["sync"]["unread"] == 1


async def test_a_long_list_is_marked_at_once(redis, server, user):
    every = ["id-%d" % n for n in range(2000)]
    async with await Client.attach(server, user) as c:
        reply = await c.command("mark_notification_read", {"notification_ids": every})
        assert reply["type"] == "notifications_marked_read"
        assert reply["payload"]["marked_read"] == every
    assert redis.client.scard("notifications:read:" + user) == 2000


async def test_marks_and_acks_hold_on_every_instance(redis, server, make_server, user):
    another = make_server()
    sent = [message(user=user) for _ in range(3)]
    store(redis, user, *sent)
    async with await Client.attach(server, user) as here, \
            await Client.attach(another, user) as there:
        for c in (here, there):
            await c.take(3)
        for command in ("mark_notification_read", "MARK_NOTIFICATION_READ"):
            reply = await here.command(command, {"notification_ids": [sent[0]["id"]]})
            heard = await there.expect("notifications_marked_read")
            assert (heard["type"], heard["payload"]) == (reply["type"], reply["payload"])
        await here.send({"type": "ack", "payload": {"last_id": sent[1]["id"]}})
        await here.command("ping")
        await harness.eventually_async(
            lambda: redis.client.get("notifications:acked:" + user), "the position is kept")
    async with await Client.attach(another, user) as c:
        assert c.sync["sync"]["unread"] == 2 and c.sync["sync"]["missed"] == 1
        assert (await c.next())["id"] == sent[2]["id"]


@pytest.mark.parametrize("payload", [None, {}, {"notification_ids": "x"}, {"notification_ids": [1]},
                                     {"notification_ids": ["x" * 257]},
                                     {"notification_ids": ["x"] * 10001}])
async def test_a_bad_list_of_ids_is_an_error(server, user, payload):
    async with await Client.attach(server, user) as c:
        reply = await c.command("MARK_NOTIFICATION_READ", payload)
        assert reply["type"] == "ERROR" and reply["payload"]["code"] == "INVALID_PAYLOAD"


async def test_connection_stats_count_over_all_workers(server, user):
    devices = [await Client.attach(server, user) for _ in range(5)]
    other = await Client.attach(server, harness.unique())
    try:
        for c in devices:
            reply = await c.command("get_connection_stats")
            assert reply["type"] == "connection_stats"
            payload = reply["payload"]
            assert payload["user_connections"] == 5
            assert payload["total_connections"] >= 6
            assert payload["connected_users"] >= 2
            assert isinstance(payload["server_uptime"], int) and payload["server_uptime"] < 600
    finally:
        for c in [other] + devices:
            await c.close()


async def test_ack_has_no_reply_and_a_bad_one_is_an_error(server, user):
    async with await Client.attach(server, user) as c:
        await c.send({"type": "ack", "payload": {"last_id": "some-id"}})
        await c.nothing()
        for payload in (None, {}, {"last_id": ""}, {"last_id": 5}, {"last_id": "x" * 300}):
            reply = await c.command("ack", payload)
            assert reply["payload"]["code"] == "INVALID_PAYLOAD"


@pytest.mark.parametrize("text, code", [
    ("{", "INVALID_JSON"), ("pong", "INVALID_JSON"), ("", "INVALID_JSON"),
    ("[" * 60000, "INVALID_JSON"), ('{"type":"ping"} ', None), ('{"type":"ping"}x', "INVALID_JSON"),
    ("[]", "INVALID_MESSAGE"), ("5", "INVALID_MESSAGE"), ('"ping"', "INVALID_MESSAGE"),
    ("{}", "INVALID_MESSAGE"), ('{"type":null}', "INVALID_MESSAGE"),
    ('{"type":"nonsense"}', "UNKNOWN_TYPE"), ('{"type":"ping","payload":5}', "INVALID_PAYLOAD"),
])
async def test_what_is_no_command_is_an_error_and_the_connection_stays(server, user, text, code):
    async with await Client.attach(server, user) as c:
        await c.send(text)
        reply = await c.next()
        if code is None:
            assert reply["type"] == "pong"
        else:
            assert reply["type"].lower() == "error"
            assert reply["payload"]["code"] == code
            assert reply["payload"]["message"] and reply["payload"]["timestamp"].endswith("Z")
        await c.nothing()


async def test_an_unknown_type_is_named_in_the_case_it_came(server, user):
    async with await Client.attach(server, user) as c:
        for kind, error in (("who_knows", "error"), ("WHO_KNOWS", "ERROR")):
            reply = await c.command(kind)
            assert reply["type"] == error
            assert reply["payload"]["message"] == "Unknown message type: " + kind


async def test_a_message_in_fragments_with_control_frames_between_is_one_message(server, user):
    with RawClient(server, "token=" + token(user)) as c:
        assert c.receive_json()["type"] == "FULL_SYNC"
        text = json.dumps({"type": "ping", "payload": {"client_time": "ü" * 100}}).encode()
        c.send(1, text[:7], fin=False)
        c.send(9, b"are you there")
        c.send(0, text[7:50], fin=False)
        c.send(0, b"", fin=False)
        c.send(10, b"unasked")
        c.send(0, text[50:])
        assert c.receive() == (10, b"are you there")
        assert c.receive_json()["payload"]["client_time"] == "ü" * 100


def test_a_message_may_arrive_byte_by_byte(server, user):
    with RawClient(server, "token=" + token(user)) as c:
        assert c.receive_json()["type"] == "FULL_SYNC"
        for byte in RawClient.frame(1, '{"type":"ping"}') + RawClient.frame(1, "ping"):
            c.sock.sendall(bytes([byte]))
        assert c.receive_json()["type"] == "pong"
        assert c.receive() == (1, b"pong")


def test_a_close_is_answered_with_its_code_and_ends_tcp(server, user):
    with RawClient(server, "token=" + token(user)) as c:
        assert c.receive_json()["type"] == "FULL_SYNC"
        c.send(8, b"\x0f\xa1" + "adiós".encode())
        assert c.close_code()[0] == 4001
        assert c.is_ended()
    with RawClient(server, "token=" + token(user)) as c:
        assert c.receive_json()["type"] == "FULL_SYNC"
        c.send(8)
        assert c.close_code()[0] in (1005, 1000)
        assert c.is_ended()


async def test_commands_in_a_row_are_answered_in_order(server, user):
    async with await Client.attach(server, user) as c:
        for n in range(200):
            await c.send({"type": "ping", "payload": {"client_time": n}})
        assert [m["payload"]["client_time"] for m in await c.take(200)] == list(range(200))
