"""Processes, signals, listeners, the command line (contract: Processes and signals, Options)."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import threading

import pytest

import harness
from harness import (BELFRYCTL, BELFRYD, TIMEOUT, Belfry, Client, is_alive, message, on_worker,
                     produce, token, unique)

# ---- a worker dies ------------------------------------------------------------------------------


async def test_a_killed_worker_is_replaced_and_the_others_clients_notice_nothing(
        redis, make_server, user):
    server = make_server()
    clients = [await on_worker(server, user, n % 2) for n in range(12)]
    before = server.stats()
    victim = before["workers"][0]
    assert 0 < victim["active_connections"] < 12
    server.kill_worker(victim["pid"])
    server.wait_healthy()
    after = server.stats()
    kept = before["workers"][1]["active_connections"]
    assert after["statistics"]["active_connections"] == kept
    assert after["statistics"]["connected_users"] == 1
    assert (after["statistics"]["total_connections_since_start"]
            >= before["statistics"]["total_connections_since_start"]), "totals went backwards"
    assert sum(w["restarts"] for w in after["workers"]) == 1
    produce(redis, user, one := message(user=user))
    lost = 0
    for c in clients:
        try:
            assert (await c.next())["id"] == one["id"]
        except harness.websockets.exceptions.ConnectionClosed:
            lost += 1
    assert lost == 12 - kept
    async with await Client.attach(server, user) as again:
        assert (await again.next())["id"] == one["id"]
        reply = await again.command("get_connection_stats")
        assert reply["payload"]["user_connections"] == kept + 1
    for c in clients:
        await c.close()


@pytest.mark.parametrize("trouble", ["workers die", "reloads"])
async def test_who_comes_back_with_its_last_id_misses_nothing_and_gets_nothing_twice(
        redis, make_server, user, trouble):
    server = make_server(drain_time="0s")
    total = 300
    sent = [message(user=user, payload={"n": n}) for n in range(total)]
    ahead, attached = threading.Semaphore(70), threading.Event()  # fewer than the list holds
    positioned = threading.Event()

    def received():
        positioned.set()
        ahead.release()

    def fire():
        killed = []
        attached.wait(TIMEOUT)
        for n, one in enumerate(sent):
            if not ahead.acquire(timeout=TIMEOUT):
                return
            produce(redis, user, one)
            positioned.wait(10)  # without a last_id a device is owed replay-limit messages only
            if n % 80 == 40 and trouble == "reloads":
                before = server.status()["generation"]
                server.signal(signal.SIGHUP)
                server.wait_status(lambda s: s["generation"] > before, "reloaded")
            elif n % 80 == 40:
                server.wait_replaced(killed)
                killed = server.worker_pids()
                for pid in killed:
                    os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=fire)
    thread.start()
    try:
        got = await harness.follow(server, user, total, attached.set, received)
        assert [m["payload"]["n"] for m in got] == list(range(total))
    finally:
        thread.join()
    if trouble == "reloads":
        statistics = server.stats()["statistics"]
        assert statistics["closes"]["closed_restart"] == 0
        assert server.wait_log("handover-given connections=1")


def test_connections_that_wait_in_a_dead_workers_queue_are_served(make_server):
    server = make_server()
    pids = server.worker_pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    waiting = [server.connect() for _ in range(10)]
    try:
        for sock in waiting:
            sock.sendall(b"GET /ws/health?live HTTP/1.1\r\nHost: x\r\n\r\n")
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for sock in waiting:
            assert harness.read_answer(sock).status == 200
    finally:
        for sock in waiting:
            sock.close()


def test_a_worker_that_dies_again_and_again_comes_back_later_each_time(make_server):
    server = make_server(workers="1")
    for n in range(3):
        assert server.kill_worker()["restarts"] == n + 1
    server.wait_ready()
    assert server.health().status in (200, 503)


def test_the_workers_end_with_a_killed_master(make_server):
    server = make_server()
    pids = server.worker_pids()
    server.signal(signal.SIGKILL)
    assert server.wait() == -9
    harness.eventually(lambda: not any(is_alive(p) for p in pids), "workers end")


def test_a_port_without_a_master_refuses_while_its_workers_still_close(make_server):
    server = make_server(workers="1")
    pid, = server.worker_pids()
    deaf = harness.RawClient(server, "token=" + token(unique()))  # will not answer the close

    def is_refused():
        try:
            server.connect().close()
        except ConnectionRefusedError:
            return True
        return False

    server.signal(signal.SIGKILL)
    assert server.wait() == -9
    harness.eventually(is_refused, "the port is shut")
    assert is_alive(pid)
    deaf.sock.close()
    harness.eventually(lambda: not is_alive(pid), "the worker ends")


# ---- stopping -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_term_and_int_stop_within_five_seconds(make_server, number):
    server = make_server()
    clients = [await Client.attach(server, unique()) for _ in range(6)]
    idle = server.connect()
    # One that neither reads nor answers the close must not hold it up.
    deaf = harness.RawClient(server, "token=" + token(unique()))
    with harness.Stopwatch() as watch:
        server.signal(number)
        for c in clients:
            assert await c.closed() == (1001, "server shutting down")
        assert server.wait() == 0
        assert watch.is_within(5), watch
    assert not os.path.exists(server.control)
    for sock in (idle, deaf.sock):
        sock.close()
    server.check_log()


async def test_quit_spreads_the_closing_over_drain_time(make_server):
    server = make_server(drain_time="2s")
    clients = [await Client.attach(server, unique()) for _ in range(24)]
    with server.connect() as sock:
        assert harness.raw_http(sock, b"GET /ws/health HTTP/1.1\r\nHost: x\r\n\r\n").status == 200

        def drain():
            server.signal(signal.SIGQUIT)
            server.wait_log("worker-draining")
            answer = harness.raw_http(sock, b"GET /ws/health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert answer.status == 503 and answer.json["status"] == "draining"

        await harness.closed_over(clients, (1001, "server shutting down"), 2, drain)
    assert server.wait() == 0
    server.check_log()


async def test_quit_says_nothing_to_clients_that_a_close_frame_keeps_away(make_server, user):
    server = make_server(drain_time="100ms", restart_close="drop")
    client = await Client.attach(server, user)
    server.signal(signal.SIGQUIT)
    assert (await client.closed())[0] == 1006
    assert server.wait() == 0
    server.check_log()


async def test_a_graceful_stop_tells_load_balancers_first(make_server, user):
    """A quarter of drain-time, over new connections; then nobody is accepted any more."""
    server = make_server(drain_time="4s")
    keep = await Client.attach(server, user)
    server.signal(signal.SIGQUIT)
    server.wait_log("worker-draining")
    answers, resets = [], []

    def is_refused():
        try:
            answer = server.health()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError as e:  # it was in the queue of a socket that was shut
            resets.append(e)
            return False
        answers.append((answer.status, answer.json["status"], answer.headers["Connection"]))
        with harness.RawClient(server, "token=" + token(user)) as new:
            assert new.status == 503 and "Retry-After" in new.head
        return False

    def look():
        try:
            return is_refused()
        except (ConnectionError, harness.Failure):  # shut between the two
            return False

    with harness.Stopwatch() as watch:
        await harness.eventually_async(look, "nobody is accepted")
        assert 0.7 < watch.seconds() and watch.is_within(3.5), watch
    assert not resets
    assert set(answers) == {(503, "draining", "close")}
    assert len(answers) > 3
    assert (await keep.closed())[0] == 1001
    assert server.wait() == 0


async def test_while_draining_nobody_new_is_accepted(make_server, user):
    server = make_server(drain_time="2s")
    keep = await Client.attach(server, user)
    server.signal(signal.SIGQUIT)
    server.wait_log("worker-draining")

    async def is_shut():
        try:
            c = await Client.open(server, user, open_timeout=TIMEOUT)
        except (OSError, harness.Refused, asyncio.TimeoutError,
                harness.websockets.exceptions.WebSocketException):
            return True
        await c.close()  # the other worker had not heard of it yet
        return False

    await harness.eventually_async(is_shut, "shut")
    assert (await keep.closed())[0] == 1001
    assert server.wait() == 0


# ---- reload -------------------------------------------------------------------------------------


async def test_hup_brings_new_values_into_force_and_refuses_no_request_meanwhile(make_server, user):
    server = make_server(drain_time="1s", max_connections_per_user="1")
    old = await Client.attach(server, user)
    pids = server.worker_pids()
    second = await Client.open(server, user)
    assert (await second.closed())[0] == 4029
    server.write_config(max_connections_per_user="5")
    server.signal(signal.SIGHUP)
    answers = []

    def reloaded():
        answers.append(server.http("GET", "/ws/health?live").status)
        status = server.status()
        ready = [w for w in status["workers"] if w["state"] == "ready"]
        return (status["generation"] > server.generation and len(ready) == 2
                and not set(pids) & {w["pid"] for w in ready})

    await harness.eventually_async(reloaded, "reloaded")
    assert set(answers) == {200}
    await harness.eventually_async(lambda: not any(is_alive(p) for p in pids), "old workers end")
    devices = [await Client.attach(server, user) for _ in range(4)]
    for c in [old, *devices]:
        await c.nothing()
        await c.close()
    assert server.status()["last_reload"]["ok"] is True


async def test_a_reload_with_anything_wrong_is_refused_as_a_whole(make_server, user):
    server = make_server()
    async with await Client.attach(server, user) as c:
        pids = server.worker_pids()
        mark = server.mark()
        server.write_config(ping_interval="never", max_connections_per_user="1")
        server.signal(signal.SIGHUP)
        server.wait_log("ping-interval", after=mark)
        server.wait_status(lambda s: s["last_reload"] and s["last_reload"]["ok"] is False,
                           "refused")
        assert server.worker_pids() == pids
        async with await Client.attach(server, user):  # the old values hold
            pass
        await c.nothing()


def test_a_reload_may_change_the_listeners(make_server):
    server = make_server()
    server.write_config(listen=["127.0.0.1:0", "[::1]:0"])
    answer = server.ask("reload")
    assert answer["ok"] is True, answer
    server.wait_status(lambda s: len(s["listen"]) == 2, "two listeners")
    server.wait_ready()
    assert len(server.addresses) == 2


# ---- logs ---------------------------------------------------------------------------------------


def has_open(pid, path):
    for fd in os.listdir("/proc/%d/fd" % pid):
        with contextlib.suppress(FileNotFoundError):  # it was closed just now
            if os.readlink("/proc/%d/fd/%s" % (pid, fd)) == path:
                return True
    return False


def test_usr1_reopens_the_log_file_in_all_processes(make_server):
    directory = harness.make_directory()
    path = os.path.join(directory, "belfry.log")
    server = make_server(log_target="file:" + path)
    os.rename(path, path + ".1")
    server.signal(signal.SIGUSR1)
    harness.eventually(lambda: all(has_open(pid, path) for pid in server.worker_pids()),
                       "the new file, in every worker")
    # A worker tells of its death into the new file.
    os.kill(server.worker_pids()[0], signal.SIGTERM)

    def told():
        with open(path, encoding="utf-8") as f:
            return re.search(r" w\d+ worker-(stopping|ends)", f.read())

    harness.eventually(told, "a worker's line in the new file")
    server.stop()
    harness.remove_directory(directory)


async def test_log_lines_may_be_json(make_server):
    import json
    server = make_server(log_format="json", log_level="debug")
    client = await Client.attach(server, "42")
    done = await asyncio.to_thread(run, BELFRYCTL, "--config", server.config, "kick", "42")
    assert done.returncode == 0
    assert (await client.closed())[0] == 4003
    server.stop()
    lines = [line for line in server.log_text().splitlines() if line.startswith("{")]
    types = {}
    for line in lines:
        event = json.loads(line)
        assert {"ts", "level", "process", "event"} <= set(event), line
        for key, value in event.items():
            types.setdefault(key, set()).add(type(value))
    assert all(len(kinds) == 1 for kinds in types.values()), types
    for key in ("pid", "slot", "lived_ms", "status", "workers", "code", "connections"):
        assert types[key] == {int}, key
    assert types["expected"] == {bool}
    for key in ("user", "conn", "address", "version", "instance"):
        assert types[key] == {str}, key
    kicked = [json.loads(line) for line in lines if '"user-kicked"' in line]
    assert sum(event["connections"] for event in kicked) == 1
    assert kicked[0]["user"] == "42"


# ---- listeners ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def everywhere(make_shared):
    directory = harness.make_directory()
    yield make_shared(listen=["127.0.0.1:0", "[::1]:0", "unix:" + directory + "/ws.sock"],
                      metrics_listen="unix:" + directory + "/metrics.sock")
    harness.remove_directory(directory)


@pytest.mark.parametrize("index", [0, 1, 2])
async def test_clients_are_served_on_every_listener(redis, everywhere, user, index):
    assert len(everywhere.addresses) == 3
    with everywhere.connect(index) as sock:
        assert harness.raw_http(sock, b"GET /ws/health HTTP/1.1\r\nHost: x\r\n\r\n").status == 200
    async with await Client.attach(everywhere, user, index=index) as c:
        produce(redis, user, one := message(user=user))
        assert (await c.next())["id"] == one["id"]


def test_metrics_may_listen_on_a_unix_socket(everywhere):
    assert everywhere.metrics().status == 200


def test_unix_sockets_are_gone_after_the_end(make_server):
    path = os.path.join(harness.make_directory(), "ws.sock")
    server = make_server(listen=["unix:" + path])
    assert os.path.exists(path)
    server.stop()
    assert not os.path.exists(path)
    os.rmdir(os.path.dirname(path))


def test_a_stale_unix_socket_is_replaced_and_a_live_one_is_not(make_server, redis):
    directory = harness.make_directory()
    path = os.path.join(directory, "ws.sock")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    server = make_server(listen=["unix:" + path])
    second = Belfry(redis, start=False, listen=["unix:" + path])
    try:
        second.start(wait=False)
        assert second.wait() == 1
        assert path in second.log_text()
        with server.connect() as sock:
            assert harness.raw_http(
                sock, b"GET /ws/health HTTP/1.1\r\nHost: x\r\n\r\n").status == 200
    finally:
        second.end()
        harness.remove_directory(directory)


async def test_tls_listeners_speak_tls(redis, make_server, user, tmp_path):
    certificate, key = harness.make_certificate(str(tmp_path))
    server = make_server(tls_certificate=certificate, tls_key=key, healthy=False)
    tls = harness.trusting(certificate)
    async with await Client.attach(server, user, tls=tls) as c:
        big = message(user=user, payload={"text": "x" * 200000})
        produce(redis, user, big)
        assert (await c.next())["id"] == big["id"]
        assert (await c.command("ping"))["type"] == "pong"
    with server.connect() as sock:  # plain text is no TLS
        sock.sendall(b"GET /ws/health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP/1.1 200" not in harness.read_to_end(sock)
    c = await Client.attach(server, user, tls=tls)
    server.signal(signal.SIGTERM)
    assert (await c.closed())[0] == 1001
    assert server.wait() == 0


def test_a_key_of_another_certificate_is_found_before_any_worker_starts(idle, tmp_path):
    for name in ("one", "other"):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                        "-subj", "/CN=localhost", "-keyout", tmp_path / (name + ".key"),
                        "-out", tmp_path / (name + ".pem")], check=True, stderr=subprocess.DEVNULL)
    with open(idle.config, "a", encoding="utf-8") as f:
        f.write("tls-certificate = %s\n" % (tmp_path / "one.pem"))
    lines = len(open(idle.config, encoding="utf-8").readlines())
    for key, status in (("one.key", 0), ("other.key", 1), ("one.pem", 1)):
        with open(idle.config, "a", encoding="utf-8") as f:
            f.write("tls-key = %s\n" % (tmp_path / key))
        lines += 1
        done = run(BELFRYD, "--config", idle.config, "--test-config")
        assert done.returncode == status, done.stdout
        assert status == 0 or "%s:%d: tls-key: " % (idle.config, lines) in done.stdout


# ---- the command line ---------------------------------------------------------------------------


def run(program, *arguments, environment=None, **how):
    env = {k: v for k, v in os.environ.items() if not k.startswith("BELFRY_")}
    env.update(environment or {})
    return subprocess.run([program, *arguments], env=env, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=4 * TIMEOUT, encoding="utf-8", **how)


@pytest.fixture
def idle(redis):
    """A configuration that nobody runs."""
    belfry = Belfry(redis, start=False)
    yield belfry
    belfry.end()


def test_test_config_says_yes(idle):
    done = run(BELFRYD, "--config", idle.config, "--test-config")
    assert done.returncode == 0, done.stdout


def test_test_config_tells_a_missing_user_or_group_once(idle):
    done = run(BELFRYD, "--config", idle.config, "--test-config", "--user=no-such", "--group=none")
    assert done.returncode == 1
    assert [line for line in done.stdout.splitlines() if "warning" not in line] == [
        "belfryd: --user: there is no user \"no-such\"",
        "belfryd: --group: there is no group \"none\""]


@pytest.mark.parametrize("line, expected", [
    ("ping-intervall = 25s", "ping-interval"),
    ("ping-interval = 25 parsecs", "ping-interval"),
    ("workers = 1000", "workers"),
    ("event-case = middle", "event-case"),
    ("listen = 127.0.0.1", "listen"),
    ("redis-url = http://x", "redis-url"),
    ("user-channel = ws:user", "user-channel"),
    ("jwt-algorithms = none", "jwt-algorithms"),
    ("jwt-secret-file = /nowhere/secret", "jwt-secret-file"),
    ("no equals sign", ":%d:"),
])
def test_test_config_names_file_line_and_option(idle, line, expected):
    with open(idle.config, encoding="utf-8") as f:
        number = len(f.read().splitlines()) + 1
    with open(idle.config, "a", encoding="utf-8") as f:
        f.write(line + "\n")
    done = run(BELFRYD, "--config", idle.config, "--test-config")
    assert done.returncode in (1, 2), done.stdout
    assert (expected % number if "%" in expected else expected) in done.stdout
    if "secret" not in line:
        assert "%s:%d" % (idle.config, number) in done.stdout
    # The server itself does not start with it.
    done = run(BELFRYD, "--config", idle.config)
    assert done.returncode == 2


@pytest.mark.parametrize("option, told", [
    ("control-socket=%s", "control-socket: %s: there is a file of this name that is no socket; "
                          "remove it or choose another path"),
    ("listen=unix:%s", "listen: unix:%s: there is a file of this name that is no socket; remove "
                       "it or choose another path"),
    ("pid-file=%s", "pid-file: %s: this is a symbolic link, which is not followed; remove it or "
                    "name its target"),
])
def test_what_stands_in_the_way_is_named_with_a_remedy(idle, tmp_path, option, told):
    path = tmp_path / "in-the-way"
    path.write_text("kept")
    if option.startswith("pid-file"):
        path = tmp_path / "link"
        path.symlink_to("in-the-way")
    done = run(BELFRYD, "--config", idle.config, "--" + option % path)
    assert done.returncode in (1, 2)
    assert told % path in done.stdout
    assert path.read_text() == "kept"


def test_command_line_beats_environment_beats_file(redis, make_server):
    server = make_server(workers="1")
    server.stop()
    server.spawn([BELFRYD, "--config", server.config, "--workers=3"],
                 env=dict(server.environment(), BELFRY_WORKERS="2"))
    assert len(server.wait_ready()["workers"]) == 3
    server.stop()
    server.spawn([BELFRYD, "--config", server.config],
                 env=dict(server.environment(), BELFRY_WORKERS="2"))
    assert len(server.wait_ready()["workers"]) == 2


def test_help_and_version(idle):
    done = run(BELFRYD, "--help")
    assert done.returncode == 0
    for option in ("--redis-url", "--jwt-secret-file", "--ping-interval", "--test-config"):
        assert option in done.stdout
    assert re.search(r"\d+\.\d+\.\d+", run(BELFRYD, "--version").stdout)
    assert run(BELFRYD, "--no-such-option").returncode == 2


def test_the_pid_file_holds_the_masters_pid(make_server):
    directory = harness.make_directory()
    path = os.path.join(directory, "belfry.pid")
    server = make_server(pid_file=path)
    with open(path, encoding="ascii") as f:
        assert int(f.read()) == server.pid
    server.stop()
    assert not os.path.exists(path)
    harness.remove_directory(directory)


def test_a_second_instance_cannot_take_the_first_ones_control_socket_or_port(redis, make_server):
    server = make_server()
    second = Belfry(redis, start=False, control_socket=server.control)
    third = Belfry(redis, start=False, listen="127.0.0.1:%d" % server.port)
    try:
        for one in (second, third):
            one.start(wait=False)
            assert one.wait() == 1
        assert server.health().status == 200
    finally:
        second.end()
        third.end()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops privileges")
def test_workers_of_root_run_unprivileged(server):
    for pid in server.worker_pids():
        with open("/proc/%d/status" % pid, encoding="ascii") as f:
            status = f.read()
        assert "0" not in re.search(r"^Uid:\s+(.*)$", status, re.M).group(1).split()
        assert "0" not in re.search(r"^Gid:\s+(.*)$", status, re.M).group(1).split()
        assert re.search(r"^CapEff:\s+0+$", status, re.M)


def test_status_tells_the_same_to_people_and_programs(server):
    import json
    done = run(BELFRYCTL, "--config", server.config, "status", "--json")
    assert done.returncode == 0, done.stdout
    status = json.loads(done.stdout)
    assert status["listen"] == server.addresses and len(status["workers"]) == 2
    assert str(server.port) in run(BELFRYCTL, "--config", server.config, "status").stdout
