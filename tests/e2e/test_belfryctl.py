"""belfryctl: every subcommand, its exit codes, what goes to stdout and what to stderr."""

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import time

import jwt
import pytest

import harness
from harness import BELFRYCTL, SECRET, TIMEOUT, Client, unique

DONE, FAILED, USAGE, TIMED_OUT = 0, 1, 2, 3


class Result:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err
        self.lines = out.splitlines()

    def json(self):
        return [json.loads(line) for line in self.lines]


def environment(**more):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("BELFRY_")}
    return dict(clean, **more)


def ctl(config, *arguments, input="", env=None, expect=DONE):
    """Runs it to its end; config: a server, a file or None."""
    argv = [BELFRYCTL]
    if config is not None:
        argv += ["--config", getattr(config, "config", config)]
    done = subprocess.run(argv + list(arguments), input=input.encode(), capture_output=True,
                          timeout=TIMEOUT * 3, env=env or environment(), check=False)
    result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
    assert not harness.SANITIZER.search(result.err), result.err
    assert result.code == expect, (arguments, result.code, result.out, result.err)
    return result


@pytest.fixture(scope="module")
def alone(redis, tmp_path_factory):
    """A configuration without a server: what only needs Redis must work with it."""
    folder = tmp_path_factory.mktemp("alone")
    secret = folder / "secret"
    secret.write_text(SECRET + "\n")
    config = folder / "belfry.conf"
    config.write_text("redis-url = %s\njwt-secret-file = %s\ncontrol-socket = %s\n"
                      % (redis.url, secret, folder / "control.sock"))
    return str(config)


class Listener(harness.Process):
    """belfryctl listen in the background; its stdout is read line by line."""

    def __init__(self, config, *arguments, input=""):
        super().__init__("belfryctl listen")
        self.errors = ""
        self.child = subprocess.Popen(
            [BELFRYCTL, "--config", getattr(config, "config", config), "listen", *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment())
        with self.child.stdin as stdin:
            stdin.write(input.encode())
        self.follow(self.child.stdout)
        self.complaints = threading.Thread(target=self._complain, daemon=True)
        self.complaints.start()

    def _complain(self):
        with self.child.stderr as stream:
            for raw in stream:
                self.errors += raw.decode("utf-8", "replace")

    def synced(self):
        self.wait_log(r'"FULL_SYNC"')
        return self

    def finish(self, expect):
        code = self.wait()
        self.complaints.join(TIMEOUT)
        assert code == expect, (code, self.log_text(), self.errors)
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def listen():
    made = []

    def make(*arguments, **how):
        made.append(Listener(*arguments, **how))
        return made[-1]

    yield make
    for one in made:
        one.end()


# ---- the command line ---------------------------------------------------------------------------


def test_help_goes_to_stdout_and_usage_errors_to_stderr(alone):
    overview = ctl(None, "help")
    assert "emit" in overview.out and not overview.err
    assert ctl(None, "--help").out == overview.out
    assert "--no-store" in ctl(None, "help", "emit").out
    assert ctl(alone, "emit", "--help").out == ctl(None, "help", "emit").out
    assert ctl(None, "--version").out.startswith("belfryctl ")
    nothing = ctl(None, expect=USAGE)
    assert not nothing.out and "Usage:" in nothing.err


@pytest.mark.parametrize("arguments, words", [
    (["emti"], "emit"),
    (["help", "hstory"], "history"),
    (["emit", "alice"], "usage"),
    (["emit", "alice", "PING", "{}", "more"], "more"),
    (["emit", "alice", "PING", "--no-stor"], "--no-store"),
    (["--redis-ur=x", "status"], "--redis-url"),
    (["listen", "--user", "a", "--timeout", "soon"], "soon"),
    (["listen", "--user", "a", "--count", "0"], "--count"),
    (["listen", "--user", "a", "--url", "http://x"], "ws://"),
    (["listen"], "--user"),
    (["listen", "--user", "a", "--token", "b"], "--user"),
    (["token"], "--user"),
    (["token", "--user", ""], "user"),
    (["token", "--user", "a", "--ttl=-5"], "--ttl"),
    (["token", "--user"], "missing"),
    (["status", "--redis-url=http://x"], "redis-url"),
    (["-x"], "dashes"),
])
def test_usage_errors_exit_2_and_name_the_remedy(alone, arguments, words):
    result = ctl(alone, *arguments, expect=USAGE)
    assert words in result.err
    assert result.out == ""


def test_an_option_belongs_to_the_subcommand_after_it_and_to_the_server_before(alone):
    told = ctl(alone, "--user=nobody", "token", "--user=carol", "--jwt-issuer=here")
    claims = jwt.decode(told.out.strip(), SECRET, algorithms=["HS256"])
    assert claims["sub"] == "carol" and claims["iss"] == "here"


def test_the_environment_and_the_file_are_read_as_the_server_reads_them(alone, tmp_path):
    broken = tmp_path / "broken.conf"
    broken.write_text("ping-intervall = 5s\n")
    result = ctl(str(broken), "token", "--user=x", expect=USAGE)
    assert "broken.conf:1" in result.err and "ping-interval" in result.err
    told = ctl(None, "token", "--user=x",
               env=environment(BELFRY_CONFIG=alone, BELFRY_JWT_ISSUER="from-env"))
    assert jwt.decode(told.out.strip(), SECRET, algorithms=["HS256"])["iss"] == "from-env"


# ---- token --------------------------------------------------------------------------------------


def test_a_token_stands_alone_on_stdout(alone):
    result = ctl(alone, "token", "--user", "alice", "--ttl=5m")
    assert len(result.lines) == 1 and result.err == ""
    claims = jwt.decode(result.lines[0], SECRET, algorithms=["HS256"])
    assert claims["sub"] == "alice" and "role" not in claims
    assert 280 <= claims["exp"] - time.time() <= 300
    assert claims["exp"] - claims["iat"] == 300
    admin = jwt.decode(ctl(alone, "token", "--user=r", "--admin").out.strip(), SECRET,
                       algorithms=["HS256"])
    assert admin["role"] == "admin" and admin["exp"] - time.time() > 3500


def test_a_token_without_a_secret_is_a_failure(alone):
    assert "jwt-secret-file" in ctl(alone, "token", "--user=a", "--jwt-secret-file=",
                                    expect=FAILED).err
    assert "/nowhere" in ctl(alone, "token", "--user=a", "--jwt-secret-file=/nowhere",
                             expect=FAILED).err


# ---- emit, broadcast, events, history -----------------------------------------------------------


def test_emit_stores_and_publishes_under_one_id(alone, redis, user):
    heard = redis.client.pubsub()
    heard.subscribe("ws:user:" + user)
    assert heard.get_message(timeout=TIMEOUT)["type"] == "subscribe"
    result = ctl(alone, "emit", user, "transaction_deleted", '{"id": "tx-1"}')
    words = dict(word.split("=") for word in result.out.split())
    assert words["receivers"] == "1" and words["stored"] == "list"
    live = json.loads(heard.get_message(timeout=TIMEOUT)["data"])
    stored = json.loads(redis.client.lindex("notifications:" + user, 0))
    assert live["channel"] == "ws:user:" + user
    assert live.pop("channel") and live == stored
    assert stored["id"] == words["id"] and stored["type"] == "TRANSACTION_DELETED"
    assert stored["payload"] == {"id": "tx-1"} and stored["user_id"] == user
    assert 0 < redis.client.ttl("notifications:" + user) <= 604800
    heard.close()


def test_emit_json_no_store_and_the_dashboard(alone, redis, user):
    told = ctl(alone, "emit", user, "PING", "--json").json()[0]
    assert told["receivers"] == 0 and told["stored"] == "no"
    told = ctl(alone, "emit", user, "TRANSACTION_DELETED", '{"id":"1"}', "--no-store")
    assert "stored=no" in told.out
    assert not redis.client.exists("notifications:" + user)
    told = ctl(alone, "--json", "emit", user, "DASHBOARD_UPDATE", "--sample").json()[0]
    assert told["stored"] == "snapshot"
    assert "updated_at" in json.loads(redis.client.get("ws:snapshot:" + user))
    assert not redis.client.exists("notifications:" + user)


def test_emit_follows_the_configured_names_case_and_profile(alone, redis, user):
    ctl(alone, "emit", user, "BALANCE_UPDATE", "--sample", "--profile=finance-tracker",
        "--notifications-key=n:{user_id}", "--history-size=1", "--history-ttl=60s")
    ctl(alone, "emit", user, "BALANCE_UPDATE", "--sample", "--profile=finance-tracker",
        "--notifications-key=n:{user_id}", "--history-size=1", "--history-ttl=60s")
    assert redis.client.llen("n:" + user) == 1
    assert 0 < redis.client.ttl("n:" + user) <= 60
    stored = json.loads(redis.client.lindex("n:" + user, 0))
    assert stored["type"] == "balance_update" and not stored["timestamp"].endswith("Z")


def test_emit_takes_the_payload_from_stdin(alone, redis, user):
    text = json.dumps({"id": "\u2615", "more": [1, {"deep": None}]})
    ctl(alone, "emit", user, "TRANSACTION_DELETED", "-", input=text + "\n")
    stored = json.loads(redis.client.lindex("notifications:" + user, 0))
    assert stored["payload"] == json.loads(text)
    big = ctl(alone, "emit", user, "X", "-", input='{"a":"%s"}' % ("x" * 1048576), expect=USAGE)
    assert "1048576" in big.err


@pytest.mark.parametrize("arguments, words", [
    (["NEW_TRANSACTION"], "amount_cents (whole number)"),
    (["NEW_TRANSACTION", "{}"], "id"),
    (["TRANSACTION_DELETED", '{"id":5}'], "id: must be a string, is a number"),
    (["X", '{"a":'], "JSON"),
    (["X", "[1]"], "JSON"),
    (["X", ""], "JSON"),
    (["", "{}"], "type"),
    (["X", "--sample"], "event table"),
    (["NOTIFICATON", "--sample"], "NOTIFICATION"),
    (["PING", "{}", "--sample"], "--sample"),
])
def test_a_payload_that_does_not_fit_is_refused_before_anything_is_sent(alone, redis, user,
                                                                        arguments, words):
    result = ctl(alone, "emit", user, *arguments, expect=USAGE)
    assert words in result.err and result.out == ""
    assert not redis.client.exists("notifications:" + user)


def test_emit_no_check_and_unknown_types_pass(alone, redis, user):
    ctl(alone, "emit", user, "TRANSACTION_DELETED", '{"id":5}', "--no-check")
    result = ctl(alone, "emit", user, "NOTIFICATON", '{"x":1}')
    assert "did you mean NOTIFICATION?" in result.err
    assert redis.client.llen("notifications:" + user) == 2
    assert "not in the event table" in ctl(alone, "emit", user, "whatever_it_is").err


def test_redis_trouble_is_a_failure_and_hides_the_password(alone, make_redis, user):
    result = ctl(alone, "emit", user, "PING", "--redis-url=redis://:hush@127.0.0.1:1/0",
                 expect=FAILED)
    assert "127.0.0.1:1" in result.err and "hush" not in result.err
    guarded = make_redis(password="sesame")
    # Redis refuses a command of so many words in words of its own before a client has logged in.
    assert "AUTH" in ctl(alone, "emit", user, "PING", "--redis-url=unix://" + guarded.path,
                         expect=FAILED).err.upper()
    ctl(alone, "emit", user, "PING", "--redis-url=" + guarded.url)
    ctl(alone, "history", user, "--redis-url=" + guarded.url)
    assert "NOAUTH" in ctl(alone, "history", user, "--redis-url=unix://" + guarded.path,
                           expect=FAILED).err
    guarded.pause()
    try:
        for what in (["emit", user, "PING"], ["history", user]):
            ctl(alone, *what, "--redis-url=" + guarded.url, "--redis-command-timeout=200ms",
                expect=FAILED)
    finally:
        guarded.resume()


def test_broadcast_sets_the_priority(alone, redis):
    heard = redis.client.pubsub()
    heard.subscribe("ws:broadcast")
    assert heard.get_message(timeout=TIMEOUT)["type"] == "subscribe"
    for payload, priority, expected in [
            ("{}", "high", {"priority": "high"}),
            (' { "a" : 1 } ', "low", {"a": 1, "priority": "low"}),
            ('{"priority":"low","b":[]}', "critical", {"priority": "critical", "b": []})]:
        ctl(alone, "broadcast", "X", payload, "--priority", priority)
        body = json.loads(heard.get_message(timeout=TIMEOUT)["data"])
        assert body["payload"] == expected and body["channel"] == "ws:broadcast"
    ctl(alone, "broadcast", "SYSTEM_ALERT", "--sample", "--priority=critical")
    assert json.loads(heard.get_message(timeout=TIMEOUT)["data"])["payload"]["system_wide"] is True
    heard.close()
    assert "urgent" in ctl(alone, "broadcast", "X", "--priority=urgent", expect=USAGE).err
    assert "alert_type" in ctl(alone, "broadcast", "SYSTEM_ALERT", "{}", expect=USAGE).err


def test_every_type_of_the_table_has_a_sample_that_is_accepted(alone, redis, user):
    names = ctl(None, "events", "--names").lines
    rows = ctl(None, "events", "--json").json()
    assert [row["type"] for row in rows] == names and len(names) >= 19
    assert ctl(None, "events", "balance_update").out.startswith("BALANCE_UPDATE")
    assert "BALANCE_UPDATE" in ctl(None, "events", "BALANCE_UPDAT", expect=USAGE).err
    table = ctl(None, "events").out
    stored = 0
    for row in rows:
        assert row["type"] in table
        told = ctl(alone, "emit", user, row["type"], "--sample", "--json").json()[0]
        assert told["stored"] == row["stored"]
        stored += row["stored"] == "list"
    assert redis.client.llen("notifications:" + user) == stored


def test_history_shows_what_is_stored(alone, redis, user):
    empty = ctl(alone, "history", user)
    assert empty.out == "" and "nothing is stored" in empty.err
    first = harness.message(user=user, id="one\u001b[31m")
    second = harness.message("BALANCE_UPDATE", user=user, id="two")
    harness.store(redis, user, first, second, "no json\nat all", json.dumps(first, indent=1))
    redis.client.sadd("notifications:read:" + user, "two")
    table = ctl(alone, "history", user)
    assert len(table.lines) == 5
    assert all(word in table.lines[3] for word in ("read", "two", "BALANCE_UPDATE"))
    assert "new" in table.lines[4] and "\x1b" not in table.out
    assert "not JSON" in table.lines[2]
    raw = ctl(alone, "history", user, "--json")
    assert len(raw.lines) == 4 and json.loads(raw.lines[2]) == second
    assert json.loads(raw.lines[0]) == first and raw.lines[1] == "no json at all"
    assert len(ctl(alone, "history", user, "--limit=1", "--json").lines) == 1
    redis.client.set("notifications:odd" + user, "x")
    assert "WRONGTYPE" in ctl(alone, "history", "odd" + user, expect=FAILED).err


# ---- listen -------------------------------------------------------------------------------------


def test_listen_prints_one_message_a_line_and_ends_after_count(server, listen, user):
    ear = listen(server, "--user", user, "--count", "2", "--timeout", "90").synced()
    first = ctl(server, "emit", user, "NEW_TRANSACTION", "--sample", "--json").json()[0]
    assert first["receivers"] >= 1
    broken = json.dumps(harness.message(user=user, id="spread"), indent=2)
    harness.publish(server.redis, user, broken)
    got = ear.finish(DONE)
    assert [m["type"] for m in got] == ["FULL_SYNC", "NEW_TRANSACTION", "NOTIFICATION"]
    assert got[1]["id"] == first["id"] and got[2]["id"] == "spread"
    assert "connected to ws://" in ear.errors


def test_what_a_producer_wrote_drives_no_terminal(redis, server, listen, user):
    ear = listen(server, "--user", user, "--count", "1", "--timeout", "90").synced()
    sent = harness.message(user=user, payload={"title": "\x9b31m \x7f\x85 ü \U0001f600"})
    text = json.dumps(sent, indent="\t", ensure_ascii=False)
    harness.produce(redis, user, text)
    assert ear.finish(DONE)[-1] == sent
    assert all(c == "\n" or c.isprintable() for c in ear.log_text())
    harness.store(redis, user, b"\x1b]0;no JSON\x07\x9b\n")
    history = ctl(server, "history", user, "--json")
    assert len(history.lines) == 2 and json.loads(history.lines[1]) == sent
    assert all(c == "\n" or c.isprintable() for c in history.out), history.out


def test_listen_does_not_count_replies_to_other_devices_of_the_user(server, listen, user):
    ear = listen(server, "--user", user, "--count", "1", "--quiet", "--timeout=90").synced()

    async def mark():
        async with await Client.attach(server, user) as device:
            await device.command("mark_notification_read", {"notification_ids": ["x"]})

    asyncio.run(mark())
    ear.wait_log("(?i)notifications_marked_read")
    ctl(server, "emit", user, "PONG")
    assert [m["type"].upper() for m in ear.finish(DONE)] == [
        "FULL_SYNC", "NOTIFICATIONS_MARKED_READ", "PONG"]
    assert ear.errors == ""


def until_timeout(listen, *arguments, meanwhile=lambda: None):
    """A listener that is connected and then ended by its --timeout, and what it got."""
    wait_ms = 500
    while True:
        ear = listen(*arguments, "--timeout=%dms" % wait_ms)
        try:
            ear.synced()
        except harness.Failure:  # it is over already
            assert wait_ms < TIMEOUT * 1000
            wait_ms *= 3
            continue
        meanwhile()
        return ear, ear.finish(TIMED_OUT)


def test_listen_times_out_with_3_and_resumes_from_last_id(server, listen, user):
    sent = [ctl(server, "emit", user, "TRANSACTION_DELETED", '{"id":"%d"}' % i, "--json").json()[0]
            for i in range(3)]
    ear, got = until_timeout(
        listen, server, "--user", user, "--last-id", sent[0]["id"], "--types",
        "TRANSACTION_DELETED,NOTIFICATION", meanwhile=lambda: ctl(server, "emit", user, "PING"))
    assert got[0]["sync"]["recovered"] is True and got[0]["sync"]["missed"] == 2
    assert [m["id"] for m in got[1:]] == [sent[1]["id"], sent[2]["id"]]
    assert "--timeout" in ear.errors


def test_listen_takes_tokens_three_ways_and_hides_them(server, listen, user, tmp_path):
    text = harness.token(user)
    file = tmp_path / "token"
    file.write_text(text + "\n")
    assert until_timeout(listen, server, "--token-file", str(file))[1][0]["user_id"] == user
    ear = listen(server, "--token-file=-", "--timeout=90", input=text).synced()
    ear.signal(signal.SIGINT)
    assert [m["user_id"] for m in ear.finish(DONE)] == [user]
    ear = listen(server, "--token", text, "--timeout=90").synced()
    with open("/proc/%d/cmdline" % ear.pid, "rb") as f:
        assert text.encode() not in f.read()
    ear.signal(signal.SIGINT)
    assert [m["type"] for m in ear.finish(DONE)] == ["FULL_SYNC"]
    assert "token=" not in server.log_text()


def test_listen_tells_close_code_and_reason(server, listen, user):
    ear = listen(server, "--token", harness.token(user, secret="another secret, long enough too"))
    assert ear.finish(FAILED) == [] and "4001 authentication failed" in ear.errors
    result = ctl(server, "listen", "--user", user, "--url", "ws://127.0.0.1:1/ws", expect=FAILED)
    assert "refused" in result.err
    health = "ws://%s/ws/nothing" % server.addresses[0]
    assert "404" in ctl(server, "listen", "--user", user, "--url", health, expect=FAILED).err


def test_listen_comes_back_and_loses_nothing(make_server, listen, user):
    with harness.reserve_port() as port:
        come_back(make_server(listen="127.0.0.1:%d" % port.getsockname()[1]), listen, user)


def come_back(gateway, listen, user):
    ear = listen(gateway, "--user", user, "--reconnect", "--count=2", "--timeout=90").synced()
    one = ctl(gateway, "emit", user, "TRANSACTION_DELETED", '{"id":"1"}', "--json").json()[0]
    ear.wait_log(one["id"])
    gateway.stop()
    two = ctl(gateway, "emit", user, "TRANSACTION_DELETED", '{"id":"2"}', "--json").json()[0]
    assert two["receivers"] == 0
    gateway.start()
    got = ear.finish(DONE)
    assert [m["id"] for m in got if m["type"] != "FULL_SYNC"] == [one["id"], two["id"]]
    assert "reconnecting" in ear.errors


def test_listen_with_reconnect_obeys_a_refused_token(server, listen, user):
    ear = listen(server, "--reconnect", "--token", harness.token(user, ttl=-60), "--timeout=90")
    ear.finish(FAILED)
    assert ear.errors.count("closed:") == 1


def test_listen_over_a_unix_socket_and_with_port_0(make_server, listen, user):
    path = os.path.join(harness.make_directory(), "ws.sock")
    gateway = make_server(listen=["127.0.0.1:0", "unix:" + path])
    common = [gateway, "--user", user, "--count=1", "--timeout=90"]
    ears = [listen(*common), listen(*common, "--listen=unix:" + path),
            listen(*common, "--url=ws+unix://%s:/ws" % path)]
    for ear in ears:
        ear.synced()
    ctl(gateway, "emit", user, "PING")
    for ear, where in zip(ears, ("ws://" + gateway.addresses[0], "ws+unix://", "ws+unix://")):
        ear.finish(DONE)
        assert where in ear.errors
    harness.remove_directory(os.path.dirname(path))


def test_listen_speaks_tls_and_checks_whom_it_speaks_to(make_server, listen, user, tmp_path):
    certificate, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                    "-keyout", key, "-out", certificate], check=True, capture_output=True)
    gateway = make_server(tls_certificate=certificate, tls_key=key, healthy=False)
    port = gateway.addresses[0].rsplit(":", 1)[1]
    by_name = "wss://localhost:%s/ws" % port
    by_address = "wss://127.0.0.1:%s/ws" % port
    common = [gateway, "--user", user, "--count=1", "--timeout=90"]
    ears = [listen(*common), listen(*common, "--url", by_name, "--ca-file", certificate)]
    for ear in ears:
        ear.synced()
    ctl(gateway, "emit", user, "PING")
    for ear in ears:
        ear.finish(DONE)
    refused = ctl(gateway, "listen", "--user", user, "--url", by_name, expect=FAILED)
    assert "--ca-file" in refused.err and refused.out == ""
    mismatch = ctl(gateway, "listen", "--user", user, "--url", by_address, "--ca-file",
                   certificate, expect=FAILED)
    assert "mismatch" in mismatch.err


def test_history_tells_that_redis_went_before_its_next_question(alone):
    """A FIN and a reset came while it did not look: writing would end it by SIGPIPE."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(TIMEOUT)
        url = "redis://127.0.0.1:%d" % listener.getsockname()[1]
        with subprocess.Popen([BELFRYCTL, "--config", alone, "--redis-url", url,
                               "--redis-command-timeout=60s", "history", "u"],
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              env=environment()) as client:
            sock = listener.accept()[0]
            sock.settimeout(TIMEOUT)
            assert b"LRANGE" in sock.recv(4096)
            client.send_signal(signal.SIGSTOP)
            assert os.WIFSTOPPED(os.waitpid(client.pid, os.WUNTRACED)[1])
            sock.sendall(b"*1\r\n$2\r\n{}\r\n")
            sock.shutdown(socket.SHUT_WR)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
            client.send_signal(signal.SIGCONT)
            said = client.communicate(timeout=TIMEOUT)[1]
    assert client.returncode == FAILED and b"Redis: SISMEMBER" in said


def test_who_prints_to_nobody_ends_as_programs_in_a_pipe_do(alone):
    there, here = os.pipe()
    os.close(there)
    done = subprocess.run([BELFRYCTL, "--config", alone, "events", "--json"], stdout=here,
                          stderr=subprocess.PIPE, timeout=TIMEOUT, env=environment(), check=False)
    os.close(here)
    assert done.returncode == -signal.SIGPIPE and done.stderr == b""


# ---- status, reload, drain, stop ----------------------------------------------------------------


def test_status_is_one_screen_or_the_json_itself(server):
    text = ctl(server, "status")
    assert "running" in text.out and "workers     2" in text.out
    assert server.addresses[0] in text.out
    assert len(text.lines) < 24 and max(len(line) for line in text.lines) <= 200
    status = ctl(server, "status", "--json").json()
    assert len(status) == 1 and status[0]["pid"] == server.pid


def test_without_a_server_the_control_commands_fail_and_say_where_they_looked(alone):
    for name in ("status", "reload", "drain", "stop"):
        assert "control.sock" in ctl(alone, name, expect=FAILED).err
    assert "control-socket" in ctl(alone, "status", "--control-socket=", expect=FAILED).err


def test_an_answer_that_does_not_come_is_a_timeout(server):
    os.kill(server.pid, signal.SIGSTOP)
    try:
        ctl(server, "status", "--timeout=200ms", expect=TIMED_OUT)
    finally:
        os.kill(server.pid, signal.SIGCONT)


def test_reload_waits_for_its_outcome(make_server):
    gateway = make_server()
    before = gateway.status()["generation"]
    assert "reloaded" in ctl(gateway, "reload").out
    assert gateway.status()["generation"] > before
    gateway.write_config(ping_interval="never")
    refused = ctl(gateway, "reload", "--config", "/dev/null",
                  "--control-socket=" + gateway.control, expect=FAILED)
    assert "ping-interval" in refused.err and refused.out == ""
    # The same file read by belfryctl itself: what is wrong in it must not keep it from asking.
    assert "reload: " in ctl(gateway, "reload", expect=FAILED).err
    assert "REFUSED" in ctl(gateway, "status").out
    answer = ctl("/dev/null", "--json", "reload", "--control-socket=" + gateway.control,
                 expect=FAILED)
    assert answer.json()[0]["ok"] is False


@pytest.mark.parametrize("order", ["stop", "drain"])
def test_stop_and_drain_end_the_server(make_server, order):
    gateway = make_server(drain_time="1s")
    ctl(gateway, order)
    assert gateway.wait() == 0


def test_embedded_redis_is_found_through_the_control_socket(server, user):
    config = {"BELFRY_REDIS_URL": "embedded", "BELFRY_CONTROL_SOCKET": server.control}
    told = ctl("/dev/null", "emit", user, "TRANSACTION_DELETED", '{"id":"1"}',
               env=environment(**config))
    assert "stored=list" in told.out
    assert server.redis.client.llen("notifications:" + user) == 1
    config["BELFRY_CONTROL_SOCKET"] = "/nonexistent/control.sock"
    assert "embedded" in ctl("/dev/null", "emit", user, "PING", env=environment(**config),
                             expect=FAILED).err


def test_output_that_cannot_be_written_is_a_failure(alone):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([BELFRYCTL, "--config", alone, "events"], stdout=full,
                              stderr=subprocess.PIPE, env=environment(), check=False)
    assert done.returncode == FAILED and b"stdout" in done.stderr


def test_unique_users_do_not_meet(alone, redis):
    """Ids with a blank, a slash, a percent sign are ids like others."""
    odd = unique("a b/%41,")
    ctl(alone, "emit", odd, "TRANSACTION_DELETED", '{"id":"1"}')
    assert redis.client.llen("notifications:" + odd) == 1
    assert len(ctl(alone, "history", odd, "--json").lines) == 1
