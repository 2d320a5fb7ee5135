"""USR2: a new binary takes over (contract: Processes and signals; belfryd(8), Upgrade)."""

import contextlib
import os
import re
import signal
import subprocess
import threading

import pytest

import harness
from harness import BELFRYD, PROGRAM, Belfry, Client, is_alive, message, produce, unique

VERSION = re.search(r"\d+\.\d+\.\d+", subprocess.run(
    [BELFRYD, "--version"], stdout=subprocess.PIPE, encoding="ascii", check=True).stdout).group(0)
OTHER = VERSION[:-1] + ("8" if VERSION[-1] != "8" else "9")


def put(path, content):
    """Replaces a program as packages do: a new file under the old name."""
    with open(path + ".new", "wb") as f:
        f.write(content)
    os.chmod(path + ".new", 0o755)
    os.rename(path + ".new", path)


def binary(*changes):
    """The program, with bytes of it replaced by as many others."""
    with open(PROGRAM, "rb") as f:
        content = f.read()
    for old, new in changes:
        assert old in content and len(old) == len(new)
        content = content.replace(old, new)
    return content


def other_version():
    return binary((VERSION.encode(), OTHER.encode()))


def script(*lines):
    return ("#!/bin/sh\n" + "\n".join(lines) + "\n").encode()


class Upgradable:
    """A directory with the program that servers are started from."""

    def __init__(self, make_server):
        self.directory = harness.make_directory()
        self.path = os.path.join(self.directory, "belfryd")
        self.make_server = make_server
        put(self.path, binary())

    def start(self, **options):
        options.setdefault("drain_time", "1s")
        return self.make_server(program=self.path, **options)

    def put_gated(self):
        """A program that becomes belfryd when the gate is opened."""
        put(self.path, script('while [ ! -e "%s.go" ]; do sleep 0.02; done' % self.path,
                              'exec %s "$@"' % PROGRAM))

    def open_gate(self):
        put(self.path + ".go", b"")


@pytest.fixture
def upgradable(make_server):
    one = Upgradable(make_server)
    yield one
    harness.remove_directory(one.directory)


def read_pid(path):
    with open(path, encoding="ascii") as f:
        return int(f.read())


# ---- it works -----------------------------------------------------------------------------------


def test_the_new_binary_is_the_instance_in_every_respect(upgradable):
    pid_file = os.path.join(upgradable.directory, "belfry.pid")
    server = upgradable.start(pid_file=pid_file, metrics_listen="127.0.0.1:0")
    before, first = server.status(), server.pid
    assert before["version"] == VERSION
    put(upgradable.path, other_version())
    after = server.upgrade()
    assert after["version"] == OTHER
    assert after["pid"] == server.pid != first
    assert read_pid(pid_file) == server.pid
    assert after["generation"] == before["generation"] + 1
    for same in ("instance_id", "started_at", "listen", "metrics_listen", "control_socket"):
        assert after[same] == before[same], same
    assert not {w["pid"] for w in before["workers"]} & {
        w["pid"] for w in after["workers"] if w["state"] == "ready"}
    assert after["totals"]["http"]["http_requests"] >= before["totals"]["http"]["http_requests"]
    assert server.child.wait(harness.TIMEOUT) == 0, "the old master leaves when it is not needed"
    assert os.path.exists(server.control) and read_pid(pid_file) == server.pid
    assert server.health().json["status"] == "healthy"
    with open("/proc/%d/environ" % server.pid, "rb") as f:
        inherited = f.read()
    for worker in server.worker_pids():
        with open("/proc/%d/environ" % worker, "rb") as f:
            assert f.read() == inherited
    server.stop()
    assert not os.path.exists(server.control) and not os.path.exists(pid_file)


def test_no_request_is_refused_while_the_binary_is_replaced(upgradable):
    server = upgradable.start()
    with harness.Watch(lambda: server.http("GET", "/ws/health?live").status, 3) as watch:
        for _ in range(2):
            server.upgrade()
            watch.go_on()
    assert set(watch.seen) == {200}


def test_health_notices_neither_reloads_nor_upgrades(upgradable):
    server = upgradable.start(redis_probe_interval="5s")  # so that none is late on a busy machine

    def ask():
        answer = server.health()
        return answer.status, answer.json["status"], answer.json["redis"]["status"]

    with harness.Watch(ask, 3) as watch:
        for turn in range(10):
            if turn % 5 == 4:
                server.upgrade()
            else:
                assert server.ask("reload")["ok"] is True
            watch.go_on()
    assert set(watch.seen) == {(200, "healthy", "connected")}


def test_a_request_that_was_begun_before_is_served(upgradable):
    server = upgradable.start()
    for change in (lambda: server.ask("reload"), server.upgrade):
        s = server.connect()
        s.sendall(("GET /ws?token=%s HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                   % harness.token()).encode())
        change()
        s.sendall(b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                  b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        assert s.recv(12) == b"HTTP/1.1 101"
        s.close()


async def test_devices_lose_nothing_and_get_nothing_twice(redis, upgradable, user):
    server = upgradable.start()
    total = 200
    sent = [message(user=user, payload={"n": n}) for n in range(total)]
    ahead, attached = threading.Semaphore(70), threading.Event()

    def fire():
        attached.wait(harness.TIMEOUT)
        for n, one in enumerate(sent):
            if not ahead.acquire(timeout=harness.TIMEOUT):
                return
            produce(redis, user, one)
            if n % 80 == 40:
                server.upgrade()

    thread = threading.Thread(target=fire)
    thread.start()
    try:
        got = await harness.follow(server, user, total, attached.set, ahead.release)
        assert [m["payload"]["n"] for m in got] == list(range(total))
    finally:
        thread.join()
    assert len(server.successors) == 2


async def test_devices_that_stay_connected_notice_nothing(redis, upgradable):
    """Plain TCP: the connections themselves go to the new binary, upgrade after upgrade."""
    server = upgradable.start(drain_time="10s")
    users = [unique() for _ in range(20)]
    devices = [await Client.attach(server, u) for u in users]
    for n in range(3):
        server.upgrade()
        for u, c in zip(users, devices):
            produce(redis, u, message(user=u, payload={"n": n}))
        for c in devices:
            assert (await c.next())["payload"] == {"n": n}
    server.wait_status(lambda s: len(s["workers"]) == 2, "the old workers are gone")
    status = server.status()
    each = [w["connections"]["websockets"] for w in status["workers"]]
    assert sum(each) == 20 and min(each) >= 5, each
    assert status["connected_users"] == 20
    assert sum(status["totals"]["closes"].values()) == 0
    assert len(server.successors) == 3
    harness.eventually(lambda: not any(is_alive(p) for p in server.successors[:-1]), "all left")
    for c in devices:
        await c.nothing()
        await c.close()


@pytest.mark.parametrize("direction", ["to it", "from it"])
async def test_between_versions_that_do_not_know_each_others_state_clients_resume(
        redis, upgradable, direction):
    """They are closed with 1012 over drain-time; the upgrade goes on."""
    other = os.path.join(os.path.dirname(PROGRAM), "tests", "e2e", "belfryd-other-state")
    if not os.path.exists(other):
        pytest.skip("make check builds " + other)
    with open(other, "rb") as f:
        programs = [binary(), f.read()]
    if direction == "from it":
        programs.reverse()
    put(upgradable.path, programs[0])
    server = upgradable.start(drain_time="1s")
    users = [unique() for _ in range(10)]
    devices = [await Client.attach(server, u) for u in users]
    first = [message(user=u) for u in users]
    for u, one in zip(users, first):
        produce(redis, u, one)
    for c in devices:
        await c.next()
    put(upgradable.path, programs[1])
    server.upgrade()
    for c in devices:
        assert await c.closed() == (1012, "restarting")
    for u, one in zip(users, first):
        produce(redis, u, two := message(user=u))
        async with await Client.attach(server, u, query={"last_id": one["id"]}) as again:
            assert again.sync["sync"]["recovered"] is True
            assert (await again.next())["id"] == two["id"]
    server.wait_log("handover-version")


def test_the_new_master_is_a_full_one(upgradable):
    server = upgradable.start()
    server.upgrade()
    server.write_config(workers="3")
    assert server.ask("reload")["ok"] is True
    assert server.status()["worker_count"] == 3
    assert server.kill_worker()["restarts"] == 1
    put(upgradable.path, other_version())
    status = server.upgrade()
    assert status["version"] == OTHER and status["worker_count"] == 3
    assert status["restarts"] == 1, "totals went backwards"
    put(upgradable.path, binary())
    assert server.upgrade()["version"] == VERSION
    server.stop()
    harness.eventually(lambda: not any(is_alive(p) for p in server.successors), "all are gone")


def test_a_new_binary_reads_the_configuration_anew(upgradable):
    """Also what a reload refuses to change, and the addresses."""
    socket_path = os.path.join(upgradable.directory, "ws.sock")
    server = upgradable.start(listen=["127.0.0.1:0", "unix:" + socket_path], trace_size="1024")
    old_port, first = server.port, server.child
    gone = harness.parse_address(server.addresses[0])
    control = os.path.join(upgradable.directory, "control.sock")
    server.write_config(listen=["unix:" + socket_path, "[::1]:0"], trace_size="2048",
                        control_socket=control)
    old_control, server.control = server.control, control
    status = server.upgrade()
    assert status["listen"][0] == "unix:" + socket_path and len(status["listen"]) == 2
    assert old_port not in [harness.parse_address(a)[1][1] for a in status["listen"][1:]]
    server.wait_ready()
    first.wait(harness.TIMEOUT)
    assert os.path.exists(socket_path) and not os.path.exists(old_control)

    def is_refused():
        try:
            harness.connect(gone).close()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:
            pass  # it came as the address was closed
        return False

    harness.eventually(is_refused, "an address that is named no more is closed")
    server.stop()
    assert not os.path.exists(socket_path)


def test_connections_that_wait_to_be_accepted_are_served_by_the_new_binary(upgradable):
    server = upgradable.start()
    old = server.worker_pids()
    for pid in old:
        os.kill(pid, signal.SIGSTOP)
    waiting = [server.connect() for _ in range(10)]
    try:
        for sock in waiting:
            sock.sendall(b"GET /ws/health?live HTTP/1.1\r\nHost: x\r\n\r\n")
        server.upgrade()
        for sock in waiting:
            assert harness.read_answer(sock).status == 200
    finally:
        for sock in waiting:
            sock.close()
        for pid in old:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@pytest.mark.skipif(bool(harness.WRAPPER), reason="there /proc/self/exe is the wrapper")
def test_a_symbolic_link_is_followed_anew(upgradable):
    real = [upgradable.path + "-1", upgradable.path + "-2"]
    put(real[0], binary())
    put(real[1], other_version())
    os.unlink(upgradable.path)
    os.symlink(real[0], upgradable.path)
    server = upgradable.start()
    os.symlink(real[1], upgradable.path + ".new")
    os.rename(upgradable.path + ".new", upgradable.path)
    assert server.upgrade()["version"] == OTHER


async def test_counters_of_another_layout_never_go_back(redis, upgradable, user):
    server = upgradable.start(drain_time="2s", metrics_listen="127.0.0.1:0")
    c = await Client.attach(server, user)
    for n in range(20):
        produce(redis, user, message(user=user))
        await c.next()
    other = [w for w in server.status()["workers"] if not w["connections"]["websockets"]][0]
    before = server.kill_worker(other["pid"])["totals"]
    assert before["messages"]["deliveries"] == 20
    # A table with a row that the first one does not know, in place of one that it knows.
    put(upgradable.path, binary((b"\0lists_read\0", b"\0lists_seen\0")))
    mark = server.mark()
    server.upgrade()
    server.wait_log("shared-memory-anew", after=mark)
    after = server.status()
    totals = after["totals"]
    assert after["restarts"] == 1
    for group, rows in before.items():
        for name, value in rows.items():
            if name in totals[group] and not re.search("_up$|_us$|_at_ms$|subscriptions$", name) \
                    and name not in ("connections", "websockets", "connected_users_local",
                                     "memory_bytes"):
                assert totals[group][name] >= value, name
    assert totals["redis"]["lists_seen"] == 0
    assert "belfry_instance_deliveries_total 20" in server.metrics().text
    server.child.wait(harness.TIMEOUT)
    # What the old workers counted until their end is in it, too.
    server.wait_status(lambda s: s["totals"]["connections"]["handover_given"] == 1, "the last one")
    await c.nothing()
    await c.close()


# ---- it fails -----------------------------------------------------------------------------------


def spoil_missing(path):
    os.unlink(path)


def spoil_mode(path):
    put(path, b"no program")
    os.chmod(path, 0o644)


def spoil_format(path):
    put(path, b"\x7fELF and nothing else")


FAILURES = {
    "missing": (spoil_missing, "cannot execute .*No such file"),
    "not executable": (spoil_mode, "cannot execute .*Permission denied"),
    "no program": (spoil_format, "cannot execute .*Exec format"),
    "exits": (lambda path: put(path, script("exit 1")), "status 1"),
    "crashes": (lambda path: put(path, script("kill -SEGV $$")), "signal 11"),
    "does not speak": (lambda path: put(path, script("exec sleep 0.2")), "status 0"),
}


@pytest.mark.parametrize("how", FAILURES)
async def test_a_binary_that_fails_leaves_the_old_one_serving(redis, upgradable, user, how):
    spoil, reason = FAILURES[how]
    server = upgradable.start()
    c = await Client.attach(server, user)
    before = server.status()
    spoil(upgradable.path)
    mark = server.mark()
    server.signal(signal.SIGUSR2)
    server.wait_log("upgrade-failed.*" + reason, after=mark)
    after = server.status()
    assert after["pid"] == before["pid"] and after["generation"] == before["generation"]
    assert after["last_reload"]["ok"] is False
    assert "upgrade failed" in after["last_reload"]["message"]
    assert [w["pid"] for w in after["workers"]] == [w["pid"] for w in before["workers"]]
    produce(redis, user, one := message(user=user))
    assert (await c.next())["id"] == one["id"]
    await c.close()
    put(upgradable.path, other_version())  # and the next try may be better
    assert server.upgrade()["version"] == OTHER


@pytest.mark.parametrize("change, reason", [
    ({"ping_interval": "never"}, "belfry.conf:.*ping-interval"),
    ({"jwt_secret_file": "/nowhere/secret"}, "belfry.conf:.*jwt-secret-file"),
    ({"listen": ["127.0.0.1:0", "203.0.113.1:9"]}, "203.0.113.1:9"),
])
def test_a_configuration_that_is_wrong_stops_the_new_binary_only(upgradable, change, reason):
    server = upgradable.start()
    before = server.status()
    server.write_config(**change)
    mark = server.mark()
    server.signal(signal.SIGUSR2)
    server.wait_log("upgrade-failed.*" + reason, after=mark)
    after = server.status()
    assert after["pid"] == before["pid"] and after["state"] == "running"
    assert server.health().status == 200
    assert server.addresses == after["listen"]
    harness.eventually(lambda: len(harness.children_of(server.pid)) == 2, "nothing is left of it")


def test_a_binary_that_hangs_is_ended_after_30_s_and_meanwhile_orders_wait(upgradable):
    server = upgradable.start()
    put(upgradable.path, script("exec sleep 100"))
    mark, watch = server.mark(), harness.Stopwatch().start()
    server.signal(signal.SIGUSR2)
    server.wait_log("upgrade-started", after=mark)
    hanging = int(re.search(r"upgrade-started .*pid=(\d+)", server.log_text(mark)).group(1))
    server.signal(signal.SIGUSR2)
    server.wait_log("upgrade-refused.*under way", after=mark)
    answer = server.ask("reload")
    assert answer["ok"] is False and "upgrade is under way" in answer["error"]
    server.write_config(workers="1")
    server.signal(signal.SIGHUP)
    server.wait_log("reload-queued", after=mark)
    assert server.kill_worker()["restarts"] == 1  # workers are looked after meanwhile
    server.wait_log("upgrade-failed.*not ready within 30 s", seconds=90, after=mark)
    watch.stop()
    assert 29 < watch.seconds() and watch.is_within(36), watch
    assert not is_alive(hanging)
    server.wait_status(lambda s: s["worker_count"] == 1, "the reload that waited")


def upgrade_and_stop_the_old_one(server, upgradable):
    """The new one finds everything in the link and nobody who listens; its pid."""
    upgradable.put_gated()
    mark, pid = server.mark(), server.pid
    server.signal(signal.SIGUSR2)
    line = server.wait_log("upgrade-started", after=mark)
    server.status()  # what it gives is in the link when it answers
    os.kill(pid, signal.SIGSTOP)
    upgradable.open_gate()
    return int(re.search(r"pid=(\d+)", line).group(1))


def test_what_workers_of_a_failed_binary_left_is_cleaned(upgradable):
    """The new one got as far as workers that serve, and is killed before it takes over."""
    server = upgradable.start(workers="1")
    pid, mark = server.pid, server.mark()
    new = upgrade_and_stop_the_old_one(server, upgradable)  # it hears READY late
    try:
        server.wait_log(r"worker-is-ready .*generation=2", after=mark)
        os.kill(new, signal.SIGKILL)
        harness.eventually(lambda: not is_alive(new), "killed")
    finally:
        os.kill(pid, signal.SIGCONT)
    server.wait_log("upgrade-failed.*signal 9", after=mark)
    server.wait_log("orphan-gone", after=mark)
    status = server.status()
    assert status["pid"] == pid and len(status["workers"]) == 1
    put(upgradable.path, binary())
    assert server.upgrade()["generation"] == 2


# ---- the old master is told something, or dies, in the middle -----------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_stop_in_the_middle_ends_both(upgradable, number):
    server = upgradable.start()
    put(upgradable.path, script("exec sleep 100"))
    mark = server.mark()
    server.signal(signal.SIGUSR2)
    line = server.wait_log("upgrade-started", after=mark)
    hanging = int(re.search(r"pid=(\d+)", line).group(1))
    server.signal(number)
    assert server.wait() == 0
    assert not is_alive(hanging)
    assert not os.path.exists(server.control)


def test_an_old_master_that_is_killed_before_the_new_one_speaks_is_replaced(upgradable):
    server = upgradable.start()
    upgradable.put_gated()
    mark, workers = server.mark(), server.worker_pids()
    server.signal(signal.SIGUSR2)
    line = server.wait_log("upgrade-started", after=mark)
    new = int(re.search(r"pid=(\d+)", line).group(1))
    server.status()  # what it gives is in the link when it answers
    server.signal(signal.SIGKILL)
    assert server.wait() == -9
    upgradable.open_gate()
    harness.eventually(lambda: not any(is_alive(p) for p in workers), "old workers end")
    assert server.wait_successor()["pid"] == new
    server.wait_ready()
    server.signal(signal.SIGTERM)
    server.wait()


def test_an_old_master_that_is_killed_before_the_switch_is_replaced(upgradable):
    server = upgradable.start()
    pid, workers, mark = server.pid, server.worker_pids(), server.mark()
    new = upgrade_and_stop_the_old_one(server, upgradable)
    server.wait_log(r"worker-is-ready .*generation=2", after=mark)
    os.kill(pid, signal.SIGKILL)
    server.child.wait(harness.TIMEOUT)
    assert server.wait_successor()["pid"] == new
    harness.eventually(lambda: not any(is_alive(p) for p in workers), "old workers end")
    assert server.health().status in (200, 503)
    server.wait_healthy()
    # Slots of the dead are free again: a whole generation more finds room, several times.
    for _ in range(4):
        assert server.ask("reload")["ok"] is True
    server.signal(signal.SIGTERM)
    server.wait()


def test_a_new_master_that_is_told_to_stop_before_it_is_ready_is_no_upgrade(upgradable):
    server = upgradable.start()
    put(upgradable.path, script("trap 'kill $!; exit 0' TERM", "sleep 100 & wait"))
    mark = server.mark()
    server.signal(signal.SIGUSR2)
    line = server.wait_log("upgrade-started", after=mark)
    os.kill(int(re.search(r"pid=(\d+)", line).group(1)), signal.SIGTERM)
    server.wait_log("upgrade-failed", after=mark)
    assert server.health().status == 200


def test_hup_during_an_upgrade_is_done_by_the_new_master(upgradable):
    server = upgradable.start()
    upgradable.put_gated()
    mark, before = server.mark(), server.status()
    server.signal(signal.SIGUSR2)
    server.wait_log("upgrade-started", after=mark)
    server.signal(signal.SIGHUP)
    server.wait_log("reload-queued", after=mark)
    upgradable.open_gate()
    server.wait_successor()
    status = server.wait_status(lambda s: s["generation"] == before["generation"] + 2, "reloaded")
    assert status["last_reload"]["ok"] is True


async def test_tls_connections_are_closed_and_come_back(upgradable, user, tmp_path):
    certificate, key = harness.make_certificate(str(tmp_path))
    server = upgradable.start(tls_certificate=certificate, tls_key=key, drain_time="500ms",
                              healthy=False)
    tls = harness.trusting(certificate)
    c = await Client.attach(server, user, tls=tls)
    server.write_config(restart_close="drop")  # what the new configuration says holds
    server.upgrade()
    assert (await c.closed())[0] == 1006
    async with await Client.attach(server, user, tls=tls) as again:
        await again.nothing()
    assert server.child.wait(harness.TIMEOUT) == 0


async def test_kick_and_revoke_reach_who_stayed_behind(upgradable, user, tmp_path):
    # TLS connections end with the workers of the master before, which the new one does not know.
    certificate, key = harness.make_certificate(str(tmp_path))
    server = upgradable.start(tls_certificate=certificate, tls_key=key, drain_time="1h",
                              healthy=False, workers="2")
    tls = harness.trusting(certificate)
    clients = [await Client.attach(server, user, tls=tls) for _ in range(6)]
    jti = unique("jti")
    revocable = await Client.attach(server, token_text=harness.token(unique(), jti=jti), tls=tls)
    server.upgrade()
    clients += [await Client.attach(server, user, tls=tls) for _ in range(2)]

    def ctl(*words):
        done = subprocess.run([harness.BELFRYCTL, "--config", server.config, *words],
                              capture_output=True, text=True, check=False,
                              timeout=harness.TIMEOUT)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    assert ctl("revoke", jti).startswith("1 connection of %s closed\n" % jti)
    assert await revocable.closed() == (4003, "token revoked")
    assert ctl("kick", user).startswith("8 connections of %s closed\n" % user)
    for c in clients:
        assert (await c.closed())[0] == 4003
    assert ctl("kick", user).startswith("0 connections")


def test_usr2_during_a_reload_comes_after_it(upgradable):
    server = upgradable.start()
    put(upgradable.path, other_version())
    before = server.status()
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    server.signal(signal.SIGHUP)
    server.signal(signal.SIGUSR2)
    os.kill(pid, signal.SIGCONT)
    status = server.wait_successor()
    assert status["version"] == OTHER and status["generation"] == before["generation"] + 2


def test_a_private_redis_is_not_handed_over(upgradable):
    dev = harness.Process("belfryd --dev")
    control = os.path.join(upgradable.directory, "control.sock")
    try:
        dev.spawn([BELFRYD, "--dev", "--listen=127.0.0.1:0", "--control-socket=" + control])
        harness.eventually(lambda: os.path.exists(control), "it runs")
        dev.wait_log("serves=clients")
        dev.wait_log(" ready workers")
        dev.signal(signal.SIGUSR2)
        dev.wait_log("upgrade-refused.*private Redis")
        dev.signal(signal.SIGTERM)
        assert dev.wait() == 0
    finally:
        dev.end()


def test_a_variable_that_names_no_link_is_refused(redis):
    idle = Belfry(redis, start=False)
    try:
        for value in ("", "x", "1", "77", "-1"):
            done = subprocess.run([BELFRYD, "--config", idle.config], stderr=subprocess.PIPE,
                                  env=dict(idle.environment(), BELFRYD_UPGRADE=value),
                                  timeout=harness.TIMEOUT)
            assert done.returncode == 2 and b"BELFRYD_UPGRADE" in done.stderr, value
    finally:
        idle.end()
