"""Slow readers: nothing stored is lost, memory stays bounded (contract: what delivery promises)."""

import contextlib
import json
import os
import re
import signal
import socket
import struct
import threading
import time

import pytest

import harness
from harness import Client, RawClient, broadcast, message, token, unique

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
LIMIT = 65536
KERNEL = 4 << 20  # more than the kernel takes for a reader with a small buffer


@pytest.fixture(scope="module")
def slow(make_shared):
    """One worker, so that its counters are those of the test; queues are small."""
    return make_shared(workers="1", send_buffer_limit="64k", history_size="1000",
                       replay_limit="1000", ping_interval="60s", redis_probe_interval="5s")


def counters(server):
    return server.stats()["statistics"]["messages"]


def wait_counter(server, name, check, seconds=None):
    return harness.eventually(lambda: check(counters(server)[name]), name, seconds)


def paused(server, user, query="", **how):
    """A device that has its FULL_SYNC and reads nothing more until it is told to."""
    c = RawClient(server, "token=" + token(user) + query, receive_buffer=4096, **how)
    assert c.receive_json()["type"] == "FULL_SYNC"
    return c


def send_many(redis, user, count, size, size_limit=1000, kind="NOTIFICATION", start=0, stored=True,
              **payload):
    """As plain producers do, but pipelined: four commands for each message."""
    pad = "x" * size
    ids = []
    pipe = redis.client.pipeline(transaction=False)
    key = "notifications:%s" % user
    for n in range(start, start + count):
        one = message(kind, user=user, payload=dict(payload, n=n, pad=pad))
        ids.append(one["id"])
        if stored:
            pipe.lpush(key, json.dumps(one))
            pipe.ltrim(key, 0, size_limit - 1)
            pipe.expire(key, 600)
        pipe.publish("ws:user:%s" % user, json.dumps(dict(one, channel="ws:user:" + user)))
        if n % 50 == 49:
            pipe.execute()
    pipe.execute()
    return ids


def take_ids(c, count, delay=0.0):
    got = []
    while len(got) < count:
        body = c.receive_json()
        if "id" in body:
            got.append(body["id"])
        if delay:
            time.sleep(delay)
    return got


def nothing_more(c):
    """What comes next is the answer to what is asked now."""
    c.send(TEXT, "ping")
    assert c.receive() == (TEXT, b"pong")


def flooded(redis, user):
    """Enough to fill the kernel's buffers and the queue."""
    return send_many(redis, user, 600, 10000)


# ---- stored messages ----------------------------------------------------------------------------


def test_who_stops_reading_gets_every_stored_message_once_and_in_order(redis, slow, user):
    before = counters(slow)
    with paused(slow, user) as c:
        ids = send_many(redis, user, 300, 6000)
        wait_counter(slow, "devices_lagging", lambda n: n == 1)
        assert take_ids(c, 300) == ids
        nothing_more(c)
        wait_counter(slow, "devices_lagging", lambda n: n == 0)
        ids = send_many(redis, user, 3, 100)
        assert take_ids(c, 3) == ids
    after = counters(slow)
    assert after["messages_dropped_slow"] == before["messages_dropped_slow"]
    assert after["lag_replays"] > before["lag_replays"]
    assert after["lag_replays_unrecovered"] == before["lag_replays_unrecovered"]


def test_a_reader_that_is_slower_than_its_producers_misses_nothing(redis, slow, user):
    with paused(slow, user) as c:
        ids = []

        def produce_on():
            for n in range(40):
                ids.extend(send_many(redis, user, 20, 4000, start=n * 20))
                time.sleep(0.01)

        producer = threading.Thread(target=produce_on)
        producer.start()
        got = take_ids(c, 800, delay=0.002)
        producer.join()
        assert got == ids
        nothing_more(c)


def test_two_lags_in_a_row(redis, slow, user):
    with paused(slow, user) as c:
        for start in (0, 300):
            ids = send_many(redis, user, 300, 6000, start=start)
            wait_counter(slow, "devices_lagging", lambda n: n == 1)
            assert take_ids(c, 300) == ids
            nothing_more(c)
            wait_counter(slow, "devices_lagging", lambda n: n == 0)


def test_a_lag_may_begin_anew_before_the_one_before_has_ended(redis, slow, user):
    with paused(slow, user) as c:
        ids = send_many(redis, user, 200, 6000)
        got = take_ids(c, 100)
        ids += send_many(redis, user, 200, 6000, start=200)
        got += take_ids(c, 150)
        ids += send_many(redis, user, 200, 6000, start=400)
        got += take_ids(c, 350)
        assert got == ids
        nothing_more(c)


def test_messages_larger_than_the_queue_pass_one_by_one(redis, slow, user):
    with paused(slow, user) as c:
        ids = send_many(redis, user, 40, 100000)
        wait_counter(slow, "devices_lagging", lambda n: n == 1)
        assert take_ids(c, 40) == ids
        nothing_more(c)


def test_attaching_to_a_long_list_comes_in_pieces(redis, slow, user):
    ids = send_many(redis, user, 100, 64000)
    with paused(slow, user) as c:
        wait_counter(slow, "devices_lagging", lambda n: n == 1)
        more = send_many(redis, user, 20, 1000, start=100)
        assert take_ids(c, 120) == ids + more
        nothing_more(c)


def test_who_lagged_and_went_resumes_where_it_was(redis, slow, user):
    with paused(slow, user) as c:
        ids = send_many(redis, user, 300, 6000)
        wait_counter(slow, "devices_lagging", lambda n: n == 1)
        got = take_ids(c, 50)
    with paused(slow, user, "&last_id=" + got[-1]) as c:
        got += take_ids(c, 250)
        assert got == ids
        nothing_more(c)
    wait_counter(slow, "devices_lagging", lambda n: n == 0)


def test_what_left_the_list_meanwhile_is_told(redis, slow, user):
    with paused(slow, user) as c:
        ids = send_many(redis, user, 300, 6000, size_limit=1000)
        wait_counter(slow, "devices_lagging", lambda n: n == 1)
        ids += send_many(redis, user, 1200, 300, start=300)
        got, syncs = [], []
        while not got or got[-1] != ids[-1]:
            body = c.receive_json()
            if body["type"] == "FULL_SYNC":
                syncs.append((len(got), body["sync"]))
            else:
                got.append(body["id"])
        assert len(syncs) == 1
        place, sync = syncs[0]
        assert sync["recovered"] is False and sync["missed"] == len(got) - place == 1000
        assert got == ids[:place] + ids[-1000:]
        nothing_more(c)
    assert counters(slow)["lag_replays_unrecovered"] == 1


def test_what_was_only_published_is_lost_and_counted(redis, slow, user):
    before = counters(slow)["messages_dropped_slow"]
    with paused(slow, user) as c:
        ids = send_many(redis, user, 300, 6000, stored=False)
        wait_counter(slow, "devices_lagging", lambda n: n == 1)
        last = send_many(redis, user, 1, 10, start=300)
        got = take_ids(c, 1)
        while got[-1] != last[0]:
            got += take_ids(c, 1)
        assert got[:-1] == ids[:len(got) - 1]
        nothing_more(c)
        wait_counter(slow, "messages_dropped_slow", lambda n: n - before == 301 - len(got))


async def test_other_devices_of_the_user_do_not_wait(redis, slow, user):
    async with await Client.attach(slow, user) as quick:
        with paused(slow, user) as c:
            ids = []
            for n in range(10):
                ids += send_many(redis, user, 30, 6000, start=n * 30)
                assert harness.ids(await quick.take(30)) == ids[-30:]
            assert counters(slow)["devices_lagging"] == 1
            assert take_ids(c, 300) == ids
            nothing_more(c)
        await quick.nothing()


def test_a_type_that_is_not_wanted_does_not_come_from_the_list_either(redis, slow, user):
    with paused(slow, user, "&types=NOTIFICATION") as c:
        ids = []
        for n in range(30):
            ids += send_many(redis, user, 10, 6000, start=n * 10)
            send_many(redis, user, 10, 6000, kind="SYSTEM_ALERT", stored=True)
        assert take_ids(c, 300) == ids
        nothing_more(c)


def test_a_lost_link_during_a_lag_is_repaired(redis, slow, user):
    with paused(slow, user) as c:
        ids = send_many(redis, user, 300, 6000)
        wait_counter(slow, "devices_lagging", lambda n: n == 1)
        redis.client.client_kill_filter(_type="pubsub", skipme=True)
        ids += send_many(redis, user, 20, 100, start=300)
        slow.wait_healthy()
        ids += send_many(redis, user, 20, 100, start=320)
        assert take_ids(c, 340) == ids
        nothing_more(c)


def test_full_sync_may_be_asked_for_during_a_lag(redis, slow, user):
    with paused(slow, user) as c:
        ids = send_many(redis, user, 300, 6000)
        wait_counter(slow, "devices_lagging", lambda n: n == 1)
        c.send(TEXT, '{"type":"DASHBOARD_REFRESH"}')
        got, kinds = [], []
        while len(got) < 300 or len(kinds) < 2:
            body = c.receive_json()
            if body["type"] == "NOTIFICATION":
                got.append(body["id"])
            else:
                kinds.append(body["type"].upper())
        assert got == ids
        assert kinds == ["FULL_SYNC", "DASHBOARD_REFRESH_COMPLETED"]
        nothing_more(c)


def test_the_server_stops_with_a_device_that_lags(redis, make_server, user):
    server = make_server(workers="1", send_buffer_limit="64k", ping_interval="60s")
    with paused(server, user):
        flooded(redis, user)
        wait_counter(server, "devices_lagging", lambda n: n == 1)
        server.stop()


# ---- types that conflate ------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [True, False])
def test_the_newest_balance_of_each_account_comes(redis, slow, user, stored):
    accounts = ["a%d" % n for n in range(7)]
    before = counters(slow)["messages_conflated"]
    with paused(slow, user) as c:
        for n in range(0, 100):
            for account in accounts:
                send_many(redis, user, 1, 3000, kind="BALANCE_UPDATE", start=n, stored=stored,
                          account_id=account)
        newest, order, count = {}, [], 0
        while set(newest.values()) != {99} or len(newest) != len(accounts):
            payload = c.receive_json()["payload"]
            count += 1
            assert payload["n"] > newest.get(payload["account_id"], -1), "out of order"
            newest[payload["account_id"]] = payload["n"]
            if payload["n"] == 99:
                order.append(payload["account_id"])
        assert order == accounts
        assert count < 600
        nothing_more(c)
    assert counters(slow)["messages_conflated"] > before


def test_the_newest_of_many_keys_comes_though_none_is_stored(redis, make_server, user):
    accounts = ["a%d" % n for n in range(100)]
    server = make_server(workers="1", history_size="1000", replay_limit="1000",
                         ping_interval="60s")
    with paused(server, user) as c:
        send_many(redis, user, 300, 6000, kind="BALANCE_UPDATE", stored=False, account_id="other")
        send_many(redis, user, 300, 6000)
        for n in range(3):
            for account in accounts:
                send_many(redis, user, 1, 200, kind="BALANCE_UPDATE", start=n, stored=False,
                          account_id=account)
        newest = []
        while len(newest) < len(accounts):
            body = c.receive_json()
            if body["type"] == "BALANCE_UPDATE" and body["payload"]["account_id"] != "other":
                assert body["payload"]["n"] == 2
                newest.append(body["payload"]["account_id"])
        assert newest == accounts
        nothing_more(c)


def test_the_newest_dashboard_comes_after_what_was_stored(redis, slow, user):
    with paused(slow, user) as c:
        ids = []
        for n in range(30):
            ids += send_many(redis, user, 10, 6000, start=n * 10)
            send_many(redis, user, 10, 3000, kind="DASHBOARD_UPDATE", start=n * 10, stored=False)
        got, boards = [], []
        while len(got) < 300 or boards[-1] != 299:
            body = c.receive_json()
            if body["type"] == "DASHBOARD_UPDATE":
                boards.append(body["payload"]["n"])
            else:
                got.append(body["id"])
        assert got == ids
        assert boards == sorted(set(boards)) and len(boards) < 200
        nothing_more(c)


# ---- broadcasts ---------------------------------------------------------------------------------


def test_of_broadcasts_the_oldest_are_dropped_and_counted(redis, slow, user):
    start = counters(slow)
    before = start["messages_dropped_slow"]
    with paused(slow, user) as c:
        sent = [message("SYSTEM_ALERT", payload={"n": n, "pad": "x" * 6000}) for n in range(300)]
        for one in sent:
            broadcast(redis, one)
        wait_counter(slow, "broadcasts_received", lambda n: n - start["broadcasts_received"] == 300)
        dropped = counters(slow)["messages_dropped_slow"] - before
        assert dropped > 0
        got = take_ids(c, 300 - dropped)
        nothing_more(c)
    ids = harness.ids(sent)
    place = next(n for n in range(300) if got[n] != ids[n])
    assert got == ids[:place] + ids[place + dropped:], "not the oldest that waited"
    assert len(got) - place > 5


def test_broadcasts_do_not_keep_a_stalled_device_from_its_messages(redis, slow, user):
    with paused(slow, user) as c:
        ids = send_many(redis, user, 300, 6000)
        for n in range(100):
            broadcast(redis, message("SYSTEM_ALERT", payload={"n": n, "pad": "x" * 2000}))
        got, newest = [], None
        while len(got) < 300 or newest != 99:
            body = c.receive_json()
            if body["type"] == "SYSTEM_ALERT":
                newest = body["payload"]["n"]
            else:
                got.append(body["id"])
        assert got == ids
        nothing_more(c)


# ---- control frames, replies, pongs -------------------------------------------------------------


def test_pings_and_commands_are_answered_during_a_lag(redis, slow, user):
    with paused(slow, user) as c:
        ids = send_many(redis, user, 300, 6000)
        wait_counter(slow, "devices_lagging", lambda n: n == 1)
        c.send(PING, b"here")
        c.send(TEXT, "ping")
        got, seen = [], []
        while len(got) < 300:
            opcode, payload = c.receive()
            if opcode == TEXT and payload != b"pong":
                got.append(json.loads(payload)["id"])
            else:
                seen.append((opcode, payload, len(got)))
        assert got == ids
        assert [s[:2] for s in seen] == [(PONG, b"here"), (TEXT, b"pong")]
        assert seen[0][2] < 150, "a pong does not wait for the messages"
        assert counters(slow)["devices_lagging"] == 0


def test_a_close_is_answered_during_a_lag(redis, slow, user):
    with paused(slow, user) as c:
        send_many(redis, user, 300, 6000)
        wait_counter(slow, "devices_lagging", lambda n: n == 1)
        c.send(CLOSE, struct.pack(">H", 1000))
        assert c.close_code() == (1000, "")
        assert c.is_ended()
    wait_counter(slow, "devices_lagging", lambda n: n == 0)


def test_who_reads_very_slowly_is_not_taken_for_dead(redis, make_server, user):
    server = make_server(workers="1", send_buffer_limit="64k", ping_interval="300ms",
                         pong_timeout="1500ms", history_size="1000")
    with paused(server, user) as c:
        ids = send_many(redis, user, 200, 6000)
        end = time.monotonic() + 4
        while time.monotonic() < end:  # reads, but is far from the server's pings
            c.buffer += c.sock.recv(4096)
            time.sleep(0.02)
        got = []
        while len(got) < 200:
            opcode, payload = c.receive()
            if opcode == PING:
                c.send(PONG, payload)
            elif opcode == TEXT:
                got.append(json.loads(payload)["id"])
            else:
                pytest.fail("closed: %r" % payload)
        assert got == ids


def test_who_does_not_read_at_all_is_taken_for_dead(redis, make_server, user):
    server = make_server(workers="1", send_buffer_limit="64k", ping_interval="300ms",
                         pong_timeout="400ms")
    with paused(server, user):
        send_many(redis, user, 200, 6000)
        harness.eventually(
            lambda: server.stats()["statistics"]["closes"]["closed_no_pong"] == 1, "no pong")
        wait_counter(server, "devices_lagging", lambda n: n == 0)


# ---- disconnect ---------------------------------------------------------------------------------


def test_disconnect_closes_with_4008_and_the_device_resumes(redis, make_server, user):
    server = make_server(workers="1", send_buffer_limit="64k", slow_consumer="disconnect",
                         history_size="1000", ping_interval="60s")
    with paused(server, user) as c:
        ids = send_many(redis, user, 300, 6000)
        harness.eventually(
            lambda: server.stats()["statistics"]["closes"]["closed_slow"] == 1, "too slow")
        got = []
        while True:
            opcode, payload = c.receive()
            if opcode == CLOSE:
                break
            got.append(json.loads(payload)["id"])
        assert struct.unpack(">H", payload[:2])[0] == 4008
    with RawClient(server, "token=%s&last_id=%s" % (token(user), got[-1])) as c:
        sync = c.receive_json()["sync"]
        assert sync["recovered"] and sync["missed"] == 300 - len(got)
        assert got + take_ids(c, 300 - len(got)) == ids


# ---- memory -------------------------------------------------------------------------------------


def resident_kb(pid, what="VmRSS"):
    with open("/proc/%d/status" % pid, encoding="ascii") as f:
        return int(re.search(r"^%s:\s+(\d+) kB" % what, f.read(), re.M).group(1))


def test_a_stalled_reader_of_100_megabytes_costs_less_than_4(redis, make_server, user):
    if harness.is_sanitized():
        pytest.skip("AddressSanitizer keeps what was freed")
    server = make_server(workers="1", send_buffer_limit="1M", ping_interval="60s")
    pid = server.worker_pids()[0]
    with paused(server, unique()) as c:
        other = unique()  # what the traffic costs whoever reads
        with RawClient(server, "token=" + token(other)) as quick:
            quick.receive_json()
            reader = threading.Thread(target=take_ids, args=(quick, 100))
            reader.start()
            send_many(redis, other, 100, 100000, size_limit=100)
            reader.join()
    with paused(server, user) as c:
        before = resident_kb(pid)
        most = before
        # What comes from Redis at once is the link's cost, whoever reads: so no more than 1 MB may
        # be on its way.
        received = counters(server)["messages_received"]
        for n in range(100):
            ids = send_many(redis, user, 10, 100000, size_limit=100, start=n * 10)
            received += 10
            wait_counter(server, "messages_received", lambda got, n=received: got >= n)
            most = max(most, resident_kb(pid))
        wait_counter(server, "devices_lagging", lambda n: n == 1)
        print("\nresident: %d kB before, %d kB at most" % (before, most))
        assert most - before < 4096
        syncs, got = [], []
        while not got or got[-1] != ids[-1]:
            body = c.receive_json()
            if body["type"] == "FULL_SYNC":
                syncs.append(body["sync"]["recovered"])
            else:
                got.append(body["id"])
        assert syncs == [False]
        assert len(got) == len(set(got)) and len(got) >= 100


def test_what_a_held_up_worker_finds_on_the_link_does_not_swell_it(redis, make_server, user):
    if harness.is_sanitized():
        pytest.skip("AddressSanitizer keeps what was freed")
    server = make_server(workers="1", send_buffer_limit="1M")
    pid = server.worker_pids()[0]

    def read_all(c):
        with contextlib.suppress(OSError):
            while c.sock.recv(1 << 20):
                pass

    with RawClient(server, "token=" + token(user)) as quick:
        quick.receive_json()
        received = counters(server)["messages_received"]
        before = resident_kb(pid)
        reader = threading.Thread(target=read_all, args=(quick,))
        os.kill(pid, signal.SIGSTOP)
        try:
            send_many(redis, user, 80, 100000, stored=False)
            reader.start()
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_counter(server, "messages_received", lambda n: n >= received + 80)
        most = resident_kb(pid, "VmHWM")
        quick.sock.shutdown(socket.SHUT_RDWR)
        reader.join()
    print("\nresident: %d kB before, %d kB at most" % (before, most))
    assert most - before < 3072
