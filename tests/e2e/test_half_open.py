"""A network that drops packets without a word: Redis lives in a network namespace of its own,
behind a pair of virtual links. Needs root."""

import os
import shutil
import subprocess

import pytest

import harness
from harness import Client, ids, message, produce, publish, store

INTERVAL_S = 0.3


class Namespace:
    """A network namespace, and the way there. Addresses are of the range kept for such tests."""

    def __init__(self):
        number = os.getpid() % 16000
        self.name = "belfry-test-%d" % os.getpid()
        self.near, self.far = "bt%dn" % number, "bt%df" % number
        base = 4 * number
        self.here = "198.18.%d.%d" % (base // 256, base % 256 + 1)
        self.there = "198.18.%d.%d" % (base // 256, base % 256 + 2)

    def ip(self, *arguments):
        subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)

    def inside(self, *arguments):
        self.ip("-n", self.name, *arguments)

    def make(self):
        self.ip("netns", "add", self.name)
        self.ip("link", "add", self.near, "type", "veth", "peer", "name", self.far,
                "netns", self.name)
        self.ip("address", "add", self.here + "/30", "dev", self.near)
        self.ip("link", "set", self.near, "up")
        self.inside("address", "add", self.there + "/30", "dev", self.far)
        self.inside("link", "set", self.far, "up")
        self.inside("link", "set", "lo", "up")

    def remove(self):
        for arguments in (["link", "delete", self.near], ["netns", "delete", self.name]):
            subprocess.run(["ip", *arguments], check=False, capture_output=True)

    def drop(self, what):
        if what == "answers":
            self.inside("route", "add", "blackhole", self.here + "/32")
        else:
            self.inside("link", "set", self.far, "down")

    def pass_on(self, what):
        if what == "answers":
            self.inside("route", "delete", "blackhole", self.here + "/32")
        else:
            self.inside("link", "set", self.far, "up")


@pytest.fixture
def namespace():
    if os.geteuid() != 0:
        pytest.skip("only root may make network namespaces")
    if not shutil.which("ip"):
        pytest.skip("ip (iproute2) is not installed")
    made = Namespace()
    try:
        made.make()
    except subprocess.CalledProcessError as e:
        made.remove()
        pytest.skip("network namespaces cannot be made here: " + e.stderr.strip())
    yield made
    made.remove()


@pytest.mark.parametrize("dropped", ["answers", "everything"])
async def test_a_half_open_link_is_noticed_and_repaired_and_nothing_is_lost(
        namespace, make_redis, make_server, user, dropped):
    redis = make_redis(tcp=True, prefix=["ip", "netns", "exec", namespace.name],
                       arguments=["--bind", namespace.there, "--protected-mode", "no"])
    server = make_server(
        use_redis=redis, redis_url="redis://%s:%d" % (namespace.there, redis.port),
        redis_probe_interval="300ms", redis_command_timeout="400ms", redis_connect_timeout="400ms")
    sent = [message(user=user, payload={"n": n}) for n in range(6)]
    async with await Client.attach(server, user) as c:
        produce(redis, user, sent[0])
        assert ids(await c.take(1)) == [sent[0]["id"]]

        namespace.drop(dropped)
        with harness.Stopwatch() as watch:
            produce(redis, user, sent[1])  # the producer's own way is open
            harness.eventually(lambda: server.health().status == 503, "degraded")
            assert watch.is_within(3 * INTERVAL_S + 0.4), watch
        assert server.health().json["status"] == "degraded"
        assert server.http("GET", "/ws/health?live").status == 200
        assert (await c.command("ping"))["type"] == "pong"
        produce(redis, user, *sent[2:4])
        store(redis, user, sent[4])

        namespace.pass_on(dropped)
        assert ids(await c.take(3)) == [one["id"] for one in sent[1:4]]
        server.wait_healthy()
        publish(redis, user, sent[4])  # the list may have brought it already
        produce(redis, user, sent[5])
        assert ids(await c.take(2)) == [one["id"] for one in sent[4:]]
        await c.nothing()
