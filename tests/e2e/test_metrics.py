"""GET /metrics on metrics-listen (contract: HTTP endpoints; Prometheus exposition format 0.0.4)."""

import re
import shutil
import subprocess

import pytest

from harness import (Client, assert_error, broadcast, eventually, message, produce, publish)


def samples(text):
    """{name and labels: value}"""
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1])
            for line in text.splitlines() if line and not line.startswith("#")}


def total(found, name):
    return sum(v for k, v in found.items() if re.match(re.escape(name) + r"(\{|$)", k))


def test_the_format_is_told_and_the_endpoint_serves_nothing_else(server):
    answer = server.metrics()
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    for path in ("/", "/ws/health", "/ws", "/ws/stats"):
        assert_error(server.metrics(path), 404)
    assert_error(server.http("GET", "/metrics"), 404)


def test_promtool_has_nothing_to_say(server):
    promtool = shutil.which("promtool")
    if not promtool:
        pytest.skip("promtool is not installed")
    done = subprocess.run([promtool, "check", "metrics"], input=server.metrics().body,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30)
    assert done.returncode == 0 and not done.stdout.strip(), done.stdout.decode()


def test_every_sample_has_help_and_type_and_one_name(server):
    text = server.metrics().text
    named = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M)
    assert len({name for name, _ in named}) == len(named)
    assert {name for name, _ in named} == set(re.findall(r"^# HELP (\S+) ", text, re.M))
    kinds = dict(named)
    for key in samples(text):
        name = key.split("{")[0]
        family = re.sub("_(bucket|sum|count)$", "", name)
        if kinds.get(family) == "histogram":
            continue
        assert name.startswith("belfry_") and name in kinds
        assert name.endswith("_total") == (kinds[name] == "counter"), name
    assert len(samples(text)) == len([line for line in text.splitlines() if line[0] != "#"])


async def test_the_counters_count(redis, server, user):
    before = samples(server.metrics().text)
    async with await Client.attach(server, user) as c:
        produce(redis, user, message(user=user), message(user=user))
        await c.take(2)
        assert (await c.command("nonsense"))["payload"]["code"] == "UNKNOWN_TYPE"
        after = samples(server.metrics().text)

        def grown(name):
            return total(after, name) - total(before, name)

        assert total(after, "belfry_connected_users") == 1
        assert total(after, "belfry_workers") == 2
        assert total(after, "belfry_websockets") == 1
        assert grown("belfry_websockets_opened_total") == 1
        assert grown("belfry_messages_received_total") == 2
        assert grown("belfry_deliveries_total") == 2
        assert grown("belfry_command_errors_total") == 1
        assert grown("belfry_sent_bytes_total") > 100
        assert total(after, "belfry_uptime_seconds") >= 0
        assert any(k.startswith("belfry_build_info{") and v == 1 for k, v in after.items())
        turns = [v for k, v in after.items()
                 if k.startswith("belfry_instance_loop_turn_seconds_bucket")]
        assert turns == sorted(turns) and turns[0] > 0  # each bucket holds those before it
        assert turns[-1] == after["belfry_instance_loop_turn_seconds_count"]
        assert grown("belfry_instance_loop_turn_seconds_count") > 0
    stats = server.stats()["statistics"]
    assert total(samples(server.metrics().text), "belfry_messages_received_total") == stats[
        "messages"]["messages_received"]


async def test_each_live_delivery_is_measured_once(redis, server, user):
    name = "belfry_instance_delivery_seconds"
    before = samples(server.metrics().text)
    clients = [await Client.attach(server, user) for _ in range(3)]
    try:
        for _ in range(20):
            publish(redis, user, message(user=user))
        broadcast(redis, message())
        for c in clients:
            await c.take(21)

        def measured():
            after = samples(server.metrics().text)
            grown = {k: after[k] - before.get(k, 0) for k in after if k.startswith(name)}
            return grown if grown[name + "_count"] >= 63 else None

        grown = eventually(measured, "63 deliveries measured")
        assert grown[name + "_count"] == 63
        assert grown[name + '_bucket{le="+Inf"}'] == 63
        assert 0 < grown[name + "_sum"] < 63 * 5
        # What comes from the list was not read just now.
        produce(redis, user, message(user=user))
        for c in clients:
            await c.take(1)
        async with await Client.attach(server, user) as late:
            await late.take(1)
        eventually(lambda: samples(server.metrics().text)[name + "_count"]
                   - before[name + "_count"] == 66, "the stored one is measured where it was live")

        def recent():
            publish(redis, user, message(user=user))
            return server.status()["rates"]["delivery_ms"]

        now = eventually(recent, "a latency of the last seconds")
        assert 0 < now["p50"] <= now["p99"] < 5000
    finally:
        for c in clients:
            await c.close()
