"""What an operator sees and does: belfryctl status, top, show, kick, drain."""

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import termios

import pytest

import harness
from harness import (BELFRYCTL, TIMEOUT, Client, Failure, RawClient, connection, deadline,
                     eventually, eventually_async, message, on_worker, produce, publish, unique,
                     worker_of)

DONE, FAILED, USAGE, TIMED_OUT = 0, 1, 2, 3
ESCAPE = "\x1b"


class Answer:
    def __init__(self, done):
        self.code, self.out, self.err = done.returncode, done.stdout.decode(), done.stderr.decode()

    def json(self):
        return [json.loads(line) for line in self.out.splitlines()]


def environment(**changes):
    clean = {k: v for k, v in os.environ.items()
             if not k.startswith("BELFRY_") and k != "NO_COLOR"}
    return dict(clean, **changes)


def ctl(server, *arguments, expect=DONE):
    answer = Answer(subprocess.run(
        [BELFRYCTL, "--config", server.config, *arguments], stdin=subprocess.DEVNULL,
        capture_output=True, timeout=TIMEOUT * 3, env=environment(), check=False))
    assert not harness.SANITIZER.search(answer.err), answer.err
    assert answer.code == expect, (arguments, answer.code, answer.out, answer.err)
    return answer


async def actl(server, *arguments, expect=DONE):
    return await asyncio.to_thread(ctl, server, *arguments, expect=expect)


def closed_by_admin(server):
    return server.status()["totals"]["closes"]["closed_admin"]


def delivered(status):
    return status["totals"]["messages"]["deliveries"]


# ---- kick ---------------------------------------------------------------------------------------

KICKED = (4003, "closed by an administrator")


async def test_kick_closes_a_user_on_every_worker_and_instance(server, make_server, user):
    other = make_server()
    before = closed_by_admin(server), closed_by_admin(other)
    clients = [await on_worker(server, user, 0), await on_worker(server, user, 1),
               await on_worker(server, user, 1), await Client.attach(other, user)]
    bystander = await Client.attach(server, unique())
    body = (await actl(server, "kick", user, "--json")).json()[0]
    assert body["user"] == user and body["closed"] == 4 and body["complete"] is True
    assert {i["instance"]: i["closed"] for i in body["instances"]} == {
        server.status()["instance_id"]: 3, other.status()["instance_id"]: 1}
    for client in clients:
        assert await client.closed() == KICKED
    assert (closed_by_admin(server), closed_by_admin(other)) == (before[0] + 3, before[1] + 1)
    await bystander.nothing()
    await bystander.close()
    async with await Client.attach(other, user):  # its token is as good as before
        text = (await actl(server, "kick", user)).out
        assert "1 connection of %s closed" % user in text
        assert "instance %s: 1" % other.status()["instance_id"] in text
    assert closed_by_admin(other) == before[1] + 2


async def test_kick_lets_out_first_what_waits(redis, server, user):
    client = await Client.attach(server, user)
    body = message(user=user)
    before = delivered(server.status())
    produce(redis, user, body)
    await asyncio.to_thread(server.wait_status, lambda s: delivered(s) > before, "it is queued")
    await actl(server, "kick", user)
    assert await client.closed() == KICKED
    assert [m["id"] for m in client.seen if "id" in m] == [body["id"]]


def test_a_user_who_is_not_there_is_kicked_already(server):
    user = unique()
    assert ctl(server, "kick", user).out == "0 connections of %s closed\n" % user
    body = ctl(server, "kick", "--json", user).json()[0]
    assert body["closed"] == 0 and body["complete"] is True


def test_a_user_that_is_none_is_a_usage_error(server):
    assert "user id" in ctl(server, "kick", "a\nb", expect=USAGE).err
    assert "user id" in ctl(server, "kick", "", expect=USAGE).err
    ctl(server, "kick", expect=USAGE)


async def test_without_redis_kick_closes_here_and_says_what_it_could_not(make_redis, make_server,
                                                                         user):
    redis = make_redis()
    server = make_server(use_redis=redis)
    client = await Client.attach(server, user)
    redis.kill()
    await asyncio.to_thread(server.wait_status, lambda s: not s["redis_links"]["command_up"] and
                            not s["redis_links"]["subscriber_up"], "the links are down")
    answer = await actl(server, "kick", user, "--json", expect=FAILED)
    assert answer.json()[0]["closed"] == 1 and answer.json()[0]["complete"] is False
    assert "other instances could not be asked" in answer.err
    assert await client.closed() == KICKED
    assert "DOWN for 2 of 2 workers" in (await actl(server, "status")).out


async def test_an_instance_that_does_not_answer_is_told(make_redis, make_server, user):
    redis = make_redis()
    server, other = make_server(use_redis=redis), make_server(use_redis=redis)
    client = await Client.attach(server, user)
    other.signal(signal.SIGSTOP)  # its master: the workers hear, and nobody tells them what to do
    try:
        answer = await actl(server, "kick", user, "--timeout=500ms", expect=FAILED)
        told = await actl(server, "explain", user, "m", "--timeout=500ms", expect=FAILED)
    finally:
        other.signal(signal.SIGCONT)
    silent = other.status()["instance_id"]
    for text, err in ((answer.err, answer.err), (told.out, told.err)):
        assert "2 workers of other instances did not answer in time" in text
        assert err.count("no answer from instance") == 1
        assert "no answer from instance " + silent in err
    assert await client.closed() == KICKED


async def test_a_worker_that_does_not_answer_is_told(make_server, user):
    server = make_server(workers="2")
    client = await Client.attach(server, user)
    slow = next(w for w in server.status()["workers"] if w["pid"] != worker_of(client))
    os.kill(slow["pid"], signal.SIGSTOP)
    try:
        for words in (["kick", user], ["show", "--user", unique()]):
            answer = await actl(server, *words, "--timeout=300ms", expect=FAILED)
            assert "not every worker answered in time: slot %d" % slow["slot"] in answer.err
        told = (await actl(server, "explain", user, "m", "--timeout=300ms", expect=FAILED)).out
        waiting = asyncio.ensure_future(actl(server, "kick", user, "--timeout=60s"))
        while server.ask("kick %s 100" % user)["workers"]["answered"] != 1:
            pass
        assert not waiting.done()
    finally:
        os.kill(slow["pid"], signal.SIGCONT)
    assert "not every worker answered in time: slot %d\n" % slow["slot"] in told
    assert "0 connections" in (await waiting).out
    assert await client.closed() == KICKED


async def test_when_others_were_not_asked_the_silent_worker_is_named_not_redis(make_server, user):
    server = make_server(workers="2")
    relay = min(server.status()["workers"], key=lambda w: w["slot"])  # the first with its links up
    os.kill(relay["pid"], signal.SIGSTOP)
    try:
        err = (await actl(server, "kick", user, "--timeout=300ms", expect=FAILED)).err
    finally:
        os.kill(relay["pid"], signal.SIGCONT)
    assert ("other instances could not be asked: the worker of slot %d, which was to ask them, is "
            "silent" % relay["slot"]) in err
    assert "Redis" not in err


async def test_a_draining_instance_is_reached_too(make_server, server, user):
    other = make_server(drain_time="30s")
    clients = [await Client.attach(other, user) for _ in range(3)]
    other.signal(signal.SIGQUIT)
    await asyncio.to_thread(other.wait_status, lambda s: s["state"] == "draining", "draining")
    body = (await actl(server, "kick", user, "--json")).json()[0]
    codes = [(await c.closed())[0] for c in clients]
    assert set(codes) <= {1001, 4003} and codes.count(4003) == body["closed"]
    assert body["complete"] is True
    assert other.wait() == 0


def request(**changes):
    body = {"v": 1, "ask": "kick", "instance": "abc", "worker": 3, "request": "c0ffee", "user": "u"}
    body.update(changes)
    return {k: v for k, v in body.items() if v is not None}


async def test_kick_over_redis_is_answered_and_nonsense_does_nothing(redis, server, user):
    client = await Client.attach(server, user)
    listener = redis.client.pubsub()
    listener.subscribe("belfry:answer:abc:3")
    assert listener.get_message(timeout=TIMEOUT)["type"] == "subscribe"
    mark = server.mark()
    nonsense = [b"", b"{", b"[]", b"\xff\xfe", b"null", "x" * 100000, request(user=None),
                request(user=""), request(user=7), request(user=[user]), request(user="u\u0000v"),
                request(user="x" * 5000, instance="abc"), request(ask="stop"), request(ask="show"),
                request(ask=None), request(ask=["kick"]), request(worker=-1),
                request(worker=1 << 40), request(instance="a b\r\n"), request(instance="../" * 99),
                request(request="no hex"), request(v=2), request(user=user, v=None)]
    for body in nonsense:
        redis.client.publish("belfry:request", json.dumps(body) if isinstance(body, dict) else body)
    redis.client.publish("belfry:request", json.dumps(request(request="beef", user=unique())))
    answer = json.loads(listener.get_message(timeout=TIMEOUT)["data"])
    assert answer["request"] == "beef" and answer["closed"] == 0  # the first that was answered
    await client.nothing()
    await asyncio.to_thread(server.wait_log, "inquiry-invalid", after=mark)
    redis.client.publish("belfry:request", json.dumps(request(user=user)))
    assert await client.closed() == KICKED
    answer = json.loads(listener.get_message(timeout=TIMEOUT)["data"])
    assert answer["request"] == "c0ffee" and answer["closed"] == 1 and answer["last"] is True
    listener.close()


# ---- show ---------------------------------------------------------------------------------------


async def test_show_tells_whose_messages_are_deflated(make_server, user):
    server = make_server(compression="on")
    for offer, is_deflated in (("deflate", True), (None, False)):
        async with await Client.attach(server, user, compression=offer) as client:
            body = (await actl(server, "show", connection(client), "--json")).json()
            assert body[0]["compression"] is is_deflated


async def test_show_tells_a_connections_state(redis, server, user):
    client = await Client.attach(server, user, query={"types": "GOAL_ACHIEVED,BUDGET_ALERT"})
    second = await on_worker(server, user, 1 - worker_of(client))
    body = (await actl(server, "show", connection(client), "--json")).json()
    assert len(body) == 1
    body = body[0]
    assert body["id"] == connection(client) and body["user"] == user
    assert body["worker"] == worker_of(client) and body["state"] == "open"
    assert (body["family"], body["address"], body["tls"]) == ("ipv4", "loopback", False)
    assert body["admin"] is False and body["compression"] is False
    assert harness.utc(-60) < body["opened_at"] <= harness.utc(1)
    assert body["opened_at"] <= body["last_read_at"]
    assert body["token_expires_at"] > harness.utc(300) and body["ping_sent_at"] is None
    assert body["received_bytes"] > 0 and body["sent_bytes"] > 0
    assert body["acknowledged_bytes"] <= body["sent_bytes"] and body["queued_bytes"] == 0
    device = body["device"]
    assert device["state"] == "live" and device["subscription"] == "confirmed"
    assert device["filter"] == {"only": ["GOAL_ACHIEVED", "BUDGET_ALERT"]}
    assert device["lag"] is None and device["user_devices"] == 1
    assert body["close"] is None
    text = (await actl(server, "show", connection(client))).out
    assert "only: GOAL_ACHIEVED BUDGET_ALERT" in text and "ipv4 loopback" in text
    await second.command("unsubscribe", {"types": ["PING"]})
    both = (await actl(server, "show", "--user", user, "--json")).json()
    assert {c["id"] for c in both} == {connection(client), connection(second)}
    assert {"except": ["PING"]} in [c["device"]["filter"] for c in both]
    text = (await actl(server, "show", "--user", user)).out
    assert text.count("connection  ") == 2 and "all but: PING" in text
    await client.close()
    await second.close()


async def test_show_tells_of_many_connections(make_server, user):
    server = make_server(max_connections_per_user="0", workers="1")
    clients = [await Client.attach(server, user) for _ in range(105)]
    answer = await actl(server, "show", "--user", user, "--json")
    rows = answer.json()
    assert len(rows) == 100 and "more than are shown" in answer.err
    assert len({c["id"] for c in rows}) == 100
    assert (await actl(server, "kick", user, "--json")).json()[0]["closed"] == 105
    for client in clients:
        assert await client.closed() == KICKED


async def test_show_fails_for_what_nobody_knows(server, user):
    client = await Client.attach(server, user)
    gone = connection(client)
    await client.close()
    await eventually_async(
        lambda: asyncio.to_thread(lambda: not server.ask("show " + gone)["connections"]), "gone")
    assert "not known, or gone" in (await actl(server, "show", gone, expect=FAILED)).err
    own = server.status()["instance_id"][-8:]
    answer = await actl(server, "show", "deadbeef-0-1", expect=FAILED)
    assert "connections begin with " + own in answer.err
    for odd in ("-", "--0", "%41", "x" * 1000, own + "-0-" + "f" * 40):
        await actl(server, "show", "--", odd, expect=FAILED)
    await actl(server, "show", expect=USAGE)
    await actl(server, "show", gone, "--user", user, expect=USAGE)
    await actl(server, "show", "x" * 1025, expect=USAGE)
    answer = await actl(server, "show", "--user", user, expect=FAILED)
    assert "not connected to this instance" in answer.err


async def test_show_tells_what_waits_for_a_client_that_does_not_read(make_server, redis, user):
    server = make_server(workers="1", send_buffer_limit="64k", history_size="50")
    raw = await asyncio.to_thread(RawClient, server, "token=" + harness.token(user),
                                  receive_buffer=4096)
    full_sync = await asyncio.to_thread(raw.receive_json)
    ident = full_sync["sync"]["connection_id"]

    def lags():
        produce(redis, user, message(user=user, payload={"x": "y" * 20000}))
        body = ctl(server, "show", ident, "--json").json()[0]
        return body if body["blocked"] and body["device"]["lag"] else None
    body = await asyncio.to_thread(eventually, lags, "the client lags")
    assert body["queued_bytes"] > 0 and body["acknowledged_bytes"] < body["sent_bytes"]
    assert body["device"]["lag"]["owed_messages"] > 0
    assert body["device"]["lag"]["since"] <= harness.utc(1)
    text = (await actl(server, "show", ident)).out
    assert "messages owed, since" in text and "the socket is full" in text
    raw.sock.close()


async def test_show_tells_how_a_connection_is_being_closed(server, user):
    raw = await asyncio.to_thread(RawClient, server, "token=" + harness.token(user))
    full_sync = await asyncio.to_thread(raw.receive_json)
    ident = full_sync["sync"]["connection_id"]
    await actl(server, "kick", user)
    body = (await actl(server, "show", ident, "--json")).json()[0]
    assert body["state"] == "closing"
    assert body["close"]["reason"] == "admin" and body["close"]["code"] == 4003
    assert body["close"]["frame_sent"] is True and body["close"]["frame_received"] is False
    assert "admin, code 4003, frame sent" in (await actl(server, "show", ident)).out
    assert (await actl(server, "kick", user, "--json")).json()[0]["closed"] == 0
    assert await asyncio.to_thread(raw.close_code) == KICKED
    raw.sock.close()


# ---- status -------------------------------------------------------------------------------------


def test_status_tells_the_links_the_rates_and_what_workers_need(redis, server, user):
    def is_busy():
        publish(redis, "nobody-" + user, message())
        publish(redis, user, message(user=user))
        return server.status()["rates"]["received"] > 0

    async def busy():
        async with await Client.attach(server, user):
            await asyncio.to_thread(eventually, is_busy, "messages a second")
            return ctl(server, "status", "--json").json()[0], ctl(server, "status").out
    status, text = asyncio.run(busy())
    links = status["redis_links"]
    assert links["workers"] == links["subscriber_up"] == links["command_up"] == 2
    assert 0 < links["latency_ms"] < 10000 and 0 < links["last_delivery_probe_ms"] < 10000
    assert harness.utc(-60) < links["last_delivery_probe_at"] <= harness.utc(1)
    assert status["rates"]["received"] > 0 and status["rates"]["delivered"] > 0
    assert 0 < status["rates"]["seconds"] <= 10
    assert len(status["workers"]) == 2
    for worker in status["workers"]:
        assert 100000 < worker["rss_bytes"] < 1 << 33
        assert worker["rates"]["cpu_percent"] >= 0
    total = sum(w["rates"]["received"] for w in status["workers"])
    assert abs(total - status["rates"]["received"]) < 0.5 + 0.2 * total
    assert "subscriber links up, command links up" in text
    assert "last delivery probe took" in text and "received/s" in text
    assert ESCAPE not in text and len(text.splitlines()) < 24


def test_status_tells_the_last_reload(make_server):
    server = make_server()
    assert "reload      none yet" in ctl(server, "status").out
    ctl(server, "reload")
    assert "reload      done at 20" in ctl(server, "status").out
    server.write_config(workers="nonsense")
    ctl(server, "reload", expect=FAILED)
    assert "reload      REFUSED at 20" in ctl(server, "status").out
    assert server.status()["last_reload"]["ok"] is False


# ---- on a terminal ------------------------------------------------------------------------------


class Terminal:
    """belfryctl on a pseudo-terminal of 80 columns."""

    def __init__(self, server, *arguments, rows=24, **variables):
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 80, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        self.text = ""
        self.child = subprocess.Popen(
            [BELFRYCTL, "--config", server.config, *arguments], stdin=self.slave,
            stdout=self.slave, stderr=self.slave, close_fds=True,
            env=environment(**dict({"TERM": "xterm"}, **variables)))

    def read(self, seconds):
        if select.select([self.master], [], [], seconds)[0]:
            self.text += os.read(self.master, 65536).decode()
            return True
        return False

    def until(self, pattern, after=0):
        """Where the match ends."""
        left = deadline()
        while True:
            found = re.compile(pattern).search(self.text, after)
            if found:
                return found.end()
            if left() <= 0 or not self.read(max(0.01, left())):
                raise Failure("never shown: %r in %r" % (pattern, self.text[-3000:]))

    def type(self, keys):
        os.write(self.master, keys.encode())

    def end(self):
        """Exit code, when everything it wrote was read. The test holds the slave, so no end of
        file comes: it is over when nothing is left after the process ended."""
        left = deadline()
        while self.child.poll() is None:
            if left() <= 0:
                self.child.kill()
                self.child.wait()
                raise Failure("belfryctl did not end: %r" % self.text[-2000:])
            self.read(0.02)
        while self.read(0):
            pass
        self.after = termios.tcgetattr(self.slave)
        os.close(self.master)
        os.close(self.slave)
        return self.child.returncode


def test_top_on_a_terminal_takes_keys_and_gives_the_terminal_back(server):
    t = Terminal(server, "top", "--interval=100ms")
    at = t.until(r"SLOT +PID[^\n]*\n")
    at = t.until("sorted by rate", at)
    assert not termios.tcgetattr(t.slave)[3] & (termios.ICANON | termios.ECHO)
    for key, name in (("m", "memory"), ("c", "connections"), ("r", "rate")):
        t.type(key)
        at = t.until("sorted by " + name, at)
    t.type("xq")
    assert t.end() == DONE
    assert t.text.startswith("\x1b[?1049h") and t.text.endswith("\x1b[?1049l")
    assert "\x1b[32mready" in t.text
    assert t.after == t.before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_top_that_is_interrupted_gives_the_terminal_back(server, number):
    t = Terminal(server, "top")
    t.until("sorted by rate")
    t.child.send_signal(number)
    assert t.end() == DONE
    assert t.text.endswith("\x1b[?1049l") and t.after == t.before


def test_top_fits_into_a_small_window_and_ends_when_it_was_told_to(server):
    t = Terminal(server, "top", "--count=2", "--interval=50ms", rows=5)
    assert t.end() == DONE
    screens = t.text.split("\x1b[H")[1:]
    assert len(screens) == 2 and all(s.count("\n") == 4 for s in screens)


def test_top_says_when_the_server_is_gone(make_server):
    server = make_server()
    t = Terminal(server, "top", "--interval=50ms")
    t.until("sorted by rate")
    server.stop()
    assert t.end() == FAILED
    assert "no answer any more" in t.text.split("\x1b[?1049l")[1] and t.after == t.before


def test_colours_only_where_they_are_wanted(server):
    def on_terminal(*arguments, **variables):
        t = Terminal(server, *arguments, **variables)
        assert t.end() == DONE
        return t.text
    assert "\x1b[32mready" in on_terminal("status")
    for variables in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert ESCAPE not in on_terminal("status", **variables)
    assert "\x1b[32m" not in on_terminal("top", "--count=1", NO_COLOR="1")
    assert ESCAPE not in on_terminal("top", "--count=1", TERM="dumb")
    assert "\x1b[32mready" in on_terminal("status", NO_COLOR="")


# ---- top without one ----------------------------------------------------------------------------


async def test_top_without_a_terminal_is_text_and_sorts(server, user):
    client = await Client.attach(server, user)
    screens = (await actl(server, "top", "--count=2", "--interval=50ms")).out
    assert ESCAPE not in screens and screens.count("SLOT ") == 2
    by_connections = (await actl(server, "top", "--count=1", "--sort=connections", "--json")).json()
    assert len(by_connections) == 1
    workers = by_connections[0]["workers"]
    assert workers[0]["slot"] == worker_of(client)
    assert [w["connections"] for w in workers] == [1, 0]
    assert by_connections[0]["connections"] == 1 and by_connections[0]["state"] == "running"
    lines = (await actl(server, "top", "--count=3", "--interval=20ms", "--sort=m", "--json")).json()
    assert len(lines) == 3 and lines[0]["at"] < lines[1]["at"] < lines[2]["at"]
    for line in lines:
        memory = [w["rss_bytes"] for w in line["workers"]]
        assert memory == sorted(memory, reverse=True)
    await client.close()


def test_top_knows_its_options(server):
    assert "--sort" in ctl(server, "top", "--sort=size", expect=USAGE).err
    ctl(server, "top", "--count=0", expect=USAGE)
    ctl(server, "top", "--interval=0", expect=USAGE)


# ---- drain --------------------------------------------------------------------------------------


async def test_drain_is_answered_at_once_and_may_be_said_twice(make_server, user):
    server = make_server(drain_time="12s")  # a quarter of it at least is left for what is asked now
    client = await Client.attach(server, user)
    assert (await actl(server, "drain")).out == "draining\n"
    assert server.status()["state"] == "draining"
    assert "draining" in (await actl(server, "status")).out
    await actl(server, "drain")
    assert (await client.closed())[0] == 1001
    assert await asyncio.to_thread(server.wait) == 0
    await actl(server, "drain", expect=FAILED)


# ---- the control socket -------------------------------------------------------------------------


def test_requests_that_are_none_are_refused(server):
    for words in ("kick", "kick ", "kick a b", "kick %00", "kick %zz", "show", "show ", "show a b",
                  "connections ", "connections a b", "connections %0a", "kick " + "x" * 300,
                  "show " + "x" * 2000):
        answer = server.ask(words)
        assert answer["ok"] is False and "expected" in answer["error"], (words, answer)


# ---- completion ---------------------------------------------------------------------------------

COMPLETION = os.path.join(os.path.dirname(os.path.abspath(__file__)),
                          "../../etc/completion/belfryctl")


def completed(*words):
    """What bash would offer for the last word."""
    script = ('source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
              '_belfryctl "$1" "${COMP_WORDS[COMP_CWORD]}"; printf "%s\\n" "${COMPREPLY[@]}"')
    done = subprocess.run(["bash", "-c", script, "bash", COMPLETION, BELFRYCTL, *words],
                          capture_output=True, timeout=TIMEOUT, env=environment(), check=True)
    assert not done.stderr, done.stderr
    return done.stdout.decode().split()


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_bash_completes_subcommands_options_and_types():
    assert completed("ki") == ["kick"] and completed("help", "tok") == ["token"]
    assert {"status", "top", "show", "kick", "drain"} <= set(completed(""))
    assert completed("--config", "x", "sho") == ["show"]
    assert completed("top", "--so") == ["--sort="]
    assert set(completed("show", "--")) == {"--user=", "--json", "--timeout="}
    assert completed("emit", "alice", "GOAL_A") == ["GOAL_ACHIEVED"]
    assert completed("emit", "al") == [] and completed("kick", "") == []


# ---- the control socket -------------------------------------------------------------------------


def dial(server, request=b""):
    s = socket.socket(socket.AF_UNIX)
    s.connect(server.control)
    s.settimeout(TIMEOUT)
    s.sendall(request)
    return s


def test_those_who_connect_and_say_nothing_keep_nobody_out(server):
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(dial(server, b"stat" * (n % 2))) for n in range(58)]
        assert "ready" in ctl(server, "status").out
        assert idle[0].recv(1) == b"", "the oldest has to go first"
        idle[-1].setblocking(False)
        with pytest.raises(BlockingIOError):
            idle[-1].recv(1)


def test_those_who_have_asked_make_room_for_nobody_unanswered(server):
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(dial(server)) for _ in range(10)]
        harness.eventually(lambda: idle and server.status(), "the idle ones are in")
        server.signal(signal.SIGSTOP)
        try:
            asking = [stack.enter_context(dial(server, b"status\n")) for _ in range(14)]
        finally:
            server.signal(signal.SIGCONT)
        for s in asking:
            with s.makefile("rb") as answer:
                assert json.loads(answer.readline())["ok"] is True
