"""HUP: a reload is a transaction (contract: Processes and signals; belfry.conf(5), Reload)."""

import os
import re
import signal
import socket
import subprocess

import pytest

import harness
from harness import BELFRYCTL, Client, message, produce, unique


def reload(server):
    """belfryctl reload: (exit code, what it printed)."""
    done = subprocess.run([BELFRYCTL, "--config", server.config, "reload"], timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
                          env=server.environment())
    return done.returncode, done.stdout


def line_of(server, name):
    with open(server.config, encoding="utf-8") as f:
        for number, line in enumerate(f, 1):
            if line.startswith(name + " ="):
                return "%s:%d: %s: " % (server.config, number, name)
    raise AssertionError(name)


def write(path, text):
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return str(path)


# ---- refused ------------------------------------------------------------------------------------


WRONG = {
    "a value": ("ping-interval", "range|unit|time", lambda tmp: {"ping_interval": "never"}),
    "a key that is not there": ("jwt-secret-file", "No such file",
                                lambda tmp: {"jwt_secret_file": str(tmp / "none")}),
    "a key that is empty": ("jwt-secret-file", "empty",
                            lambda tmp: {"jwt_secret_file": write(tmp / "empty", "")}),
    "a key that is none": ("jwt-public-key-file", "key", lambda tmp: {
        "jwt_algorithms": "RS256", "jwt_public_key_file": write(tmp / "key", "no PEM")}),
    "a secret that is too short": ("jwt-secret-file", "at least 32", lambda tmp: {
        "jwt_secret_file": write(tmp / "short", "x" * 31 + "\n")}),
    "a set of keys that is none": ("jwt-jwks-file", "one array", lambda tmp: {
        "jwt_jwks_file": write(tmp / "set", "[]")}),
    "a certificate that is not there": ("tls-certificate", "No such file", lambda tmp: {
        "tls_certificate": str(tmp / "none"), "tls_key": str(tmp / "none")}),
    "an address that this machine has not": (
        "listen", "203.0.113.7:9: this machine does not have this address",
        lambda tmp: {"listen": "203.0.113.7:9"}),
    "a metrics address in use": ("metrics-listen", "another process listens",
                                 lambda tmp: {"metrics_listen": "TAKEN"}),
    "a log that cannot be opened": ("log-target", "No such file",
                                    lambda tmp: {"log_target": "file:%s/none/log" % tmp}),
    "a private Redis": ("redis-url", "needs a restart", lambda tmp: {"redis_url": "embedded"}),
    "an option that needs a restart": ("trace-size", "needs a restart",
                                       lambda tmp: {"trace_size": "2048"}),
}


@pytest.mark.parametrize("how", WRONG)
async def test_anything_wrong_changes_nothing_and_is_told_with_option_file_and_line(
        redis, make_server, user, tmp_path, how):
    option, reason, change = WRONG[how]
    server = make_server()
    c = await Client.attach(server, user)
    before, mark = server.status(), server.mark()
    taken = socket.create_server(("127.0.0.1", 0))
    changes = {name: value.replace("TAKEN", "127.0.0.1:%d" % taken.getsockname()[1])
               for name, value in change(tmp_path).items()}
    server.write_config(max_connections_per_user="1", **changes)
    code, said = reload(server)
    taken.close()
    assert code == 1
    assert line_of(server, option) in said, said
    assert re.search(reason, said), said
    line = server.wait_log("reload-refused", after=mark)
    assert line_of(server, option) in line and re.search(reason, line)
    after = server.status()
    assert after["generation"] == before["generation"]
    assert [w["pid"] for w in after["workers"]] == [w["pid"] for w in before["workers"]]
    assert after["listen"] == before["listen"] and after["metrics_listen"] is None
    assert after["last_reload"]["ok"] is False
    async with await Client.attach(server, user):  # the old limit holds
        produce(redis, user, one := message(user=user))
        assert (await c.next())["id"] == one["id"]
    await c.close()


@pytest.mark.parametrize("name, value", [
    ("pid-file", "/tmp/belfry-never-written.pid"), ("trace-size", "1000"),
    ("profile", "finance-tracker"), ("control-socket", "/tmp/belfry-never-made.sock"),
    ("user", "daemon"), ("group", "daemon")],
    ids=["pid-file", "trace-size", "profile", "control-socket", "user", "group"])
def test_options_that_need_a_restart_are_named(make_server, name, value):
    if name in ("user", "group") and os.geteuid():
        pytest.skip("only root switches")
    server = make_server(healthy=False)
    server.write_config(**{name.replace("-", "_"): value, "ping_interval": "20s"})
    # belfryctl reads the same file; it must ask the server that runs.
    answer = server.ask("reload")
    assert answer == {"ok": False, "error": line_of(server, name) + "changing it needs a restart"}
    assert not os.path.exists(value)


def test_several_errors_are_told_at_once(make_server):
    server = make_server(healthy=False)
    server.write_config(ping_interval="never", pong_timeout="soon", workers="many")
    code, said = reload(server)
    assert code == 1
    for name in ("ping-interval", "pong-timeout", "workers"):
        assert line_of(server, name) in said


def test_a_reload_that_is_corrected_goes_through(make_server):
    server = make_server(healthy=False)
    server.write_config(ping_interval="never")
    assert reload(server)[0] == 1
    server.write_config(ping_interval="20s")
    assert reload(server) == (0, reload(server)[1])
    status = server.status()
    assert status["last_reload"]["ok"] is True and status["generation"] == 3


# ---- listeners ----------------------------------------------------------------------------------


def is_refused(address):
    try:
        harness.connect(address).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    except ConnectionResetError:
        pass  # it came as the address was closed
    return False


async def test_listeners_are_added_and_removed(redis, make_server, user):
    directory = harness.make_directory()
    path = os.path.join(directory, "ws.sock")
    server = make_server(drain_time="300ms")
    first = server.address()
    server.write_config(listen=[server.addresses[0], "unix:" + path, "[::1]:0"],
                        metrics_listen="127.0.0.1:0")
    assert reload(server)[0] == 0
    server.wait_ready()
    assert server.address() == first and len(server.addresses) == 3
    for index in range(3):
        async with await Client.attach(server, unique(), index=index) as c:
            await c.nothing()
    assert server.metrics().status == 200
    metrics = harness.parse_address(server.metrics_address)
    gone = [server.address(0), server.address(1), metrics]
    server.write_config(listen=[server.addresses[2]], metrics_listen=None)
    assert reload(server)[0] == 0
    for address in gone:
        harness.eventually(lambda: is_refused(address), "%s is closed" % (address,))
    assert not os.path.exists(path)
    server.wait_ready()
    async with await Client.attach(server, user) as c:
        await c.nothing()
    harness.remove_directory(directory)


def test_addresses_of_a_refused_reload_are_closed_again(make_server):
    server = make_server(healthy=False)
    with harness.reserve_port() as kept:
        port = kept.getsockname()[1]
        server.write_config(listen=[server.addresses[0], "127.0.0.1:%d" % port], trace_size="77")
        assert reload(server)[0] == 1
        assert is_refused((socket.AF_INET, ("127.0.0.1", port)))


async def test_workers_of_a_refused_reload_have_served_nobody(make_server):
    """One of the new workers is ready, another dies before it is."""
    own = harness.Redis()
    server = make_server(use_redis=own, workers="2")
    old, mark = server.worker_pids(), server.mark()
    own.pause()  # nobody gets ready
    server.write_config(workers="4")
    server.signal(signal.SIGHUP)
    started = [server.wait_log("worker-started .* generation=2", after=mark)]
    while len(started) < 4:
        started.append(server.wait_log(
            "worker-started .* generation=2", after=server.lines.index(started[-1]) + 1))
    victim = int(re.search(r"pid=(\d+)", started[0]).group(1))
    os.kill(victim, signal.SIGSTOP)
    own.resume()
    at = mark
    for _ in started[1:]:
        at = server.lines.index(server.wait_log("worker-ready slot=", after=at)) + 1
    clients = [await Client.attach(server, unique()) for _ in range(40)]
    os.kill(victim, signal.SIGKILL)
    server.wait_log("reload-refused reason=.a worker ended before it was ready", after=mark)
    await harness.eventually_async(lambda: server.worker_pids() == old, "the new ones are gone")
    for c in clients:
        assert (await c.command("ping"))["type"] == "pong"
        await c.close()
    server.stop()
    own.end()


# ---- what changes how ---------------------------------------------------------------------------


@pytest.mark.parametrize("how, expected", [("frame", (1012, "restarting")), ("drop", (1006, ""))])
async def test_tls_connections_are_closed_over_drain_time_as_the_new_values_say(
        make_server, tmp_path, how, expected):
    """drain-time and restart-close change live: they hold for the very reload that brings them."""
    certificate, key = harness.make_certificate(str(tmp_path))
    server = make_server(tls_certificate=certificate, tls_key=key, drain_time="1h", healthy=False,
                         restart_close="drop" if how == "frame" else "frame")
    tls = harness.trusting(certificate)
    clients = [await Client.attach(server, unique(), tls=tls) for _ in range(24)]
    server.write_config(drain_time="2s", restart_close=how)
    await harness.closed_over(clients, expected, 2, lambda: server.ask("reload"))
    assert server.status()["last_reload"]["ok"] is True
    server.wait_status(lambda s: len(s["workers"]) == 2, "the old ones are gone")


async def test_the_log_changes_live(make_server, tmp_path):
    """Also for old workers that have connections to close yet."""
    certificate, key = harness.make_certificate(str(tmp_path))
    server = make_server(tls_certificate=certificate, tls_key=key, drain_time="2s", healthy=False,
                         log_level="notice")
    tls = harness.trusting(certificate)
    c = await Client.attach(server, unique(), tls=tls)
    server.write_config(log_level="info", log_format="json")
    mark = server.mark()
    assert server.ask("reload")["ok"] is True
    assert (await c.closed())[0] == 1012
    line = server.wait_log("connection-closed", after=mark)
    assert line.startswith("{") and '"process":"w' in line


async def test_new_keys_under_an_old_name_are_read(make_server, user):
    server = make_server()
    other = "another secret that is long enough for HS256 as well"
    fresh = harness.token(user, secret=other)
    c = await Client.open(server, token_text=fresh)
    assert (await c.closed())[0] == 4001
    write(server.secret_file, other)
    server.signal(signal.SIGHUP)
    server.wait_status(lambda s: s["generation"] == 2 and len(s["workers"]) == 2, "reloaded")
    async with await Client.attach(server, token_text=fresh):
        pass
    c = await Client.open(server, user)
    assert (await c.closed())[0] == 4001
