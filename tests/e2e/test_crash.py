"""Workers that die, and a master that goes on (contract: Processes and signals)."""

import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

import harness
from harness import BELFRYD, Client, RawClient, message, produce

KINDS = ("killed", "crashed", "hung", "other")


def deaths(server):
    process = server.status()["totals"]["process"]
    return {kind: process["worker_deaths_" + kind] for kind in KINDS}


# ---- of what it died ----------------------------------------------------------------------------


@pytest.mark.parametrize("number, kind, cause", [
    (signal.SIGKILL, "killed", "SIGKILL from outside"),
    (signal.SIGSEGV, "crashed", "SEGV"),
    (signal.SIGABRT, "crashed", "ABRT"),
    (signal.SIGTERM, "other", "it ended by itself"),
])
def test_deaths_are_counted_by_their_cause_and_last_words_are_logged(make_server, number, kind,
                                                                     cause):
    server = make_server(workers="1", metrics_listen="127.0.0.1:0", healthy=False)
    pid, mark = server.worker_pids()[0], server.mark()
    assert server.kill_worker(pid, number)["restarts"] == 1
    line = server.wait_log("worker-last-words", after=mark)
    assert "pid=%d" % pid in line and cause in line and "doing=" in line
    assert deaths(server) == dict.fromkeys(KINDS, 0) | {kind: 1}
    assert re.search(r"^belfry_worker_deaths_%s_total\{worker=\"0\"\} 1$" % kind,
                     server.metrics().text, re.M)


def test_a_worker_that_hangs_is_killed_after_a_time_and_counted_apart(make_server):
    server = make_server(workers="2")
    victim, mark = server.worker_pids()[0], server.mark()
    os.kill(victim, signal.SIGSTOP)
    waiting = [server.connect(seconds=60) for _ in range(10)]
    try:
        with harness.Stopwatch() as watch:
            for sock in waiting:
                sock.sendall(b"GET /ws/health?live HTTP/1.1\r\nHost: x\r\n\r\n")
            server.wait_log("worker-killed .*no heartbeat", seconds=60, after=mark)
            assert 15 < watch.seconds() and watch.is_within(30), watch
        assert server.wait_replaced([victim])["restarts"] == 1
        for sock in waiting:  # also those in the dead one's queue
            assert harness.read_answer(sock).status == 200
    finally:
        for sock in waiting:
            sock.close()
    assert deaths(server) == dict.fromkeys(KINDS, 0) | {"hung": 1}
    assert "it hung" in server.wait_log("worker-last-words", after=mark)


def test_workers_that_end_as_asked_are_no_deaths(make_server):
    server = make_server()
    assert server.ask("reload")["ok"] is True
    server.wait_status(lambda s: len(s["workers"]) == 2, "the old ones are gone")
    assert deaths(server) == dict.fromkeys(KINDS, 0)
    assert "worker-last-words" not in server.log_text()


def test_the_connection_that_a_worker_dies_of_is_named(make_server):
    """A worker that is kept busy by one device is hit in the middle of that, sooner or later."""
    server = make_server(workers="1", echo="on", healthy=False)
    for attempt in range(20):
        pid, mark = server.worker_pids()[0], server.mark()
        device = RawClient(server, path="/echo")
        done = threading.Event()
        flood = RawClient.frame(1, "x" * 60000) * 20

        def send():
            try:
                while not done.is_set():
                    device.sock.sendall(flood)
            except OSError:
                pass

        def read():
            try:
                while device.sock.recv(1 << 20):
                    pass
            except OSError:
                pass

        threads = [threading.Thread(target=one) for one in (send, read)]
        for one in threads:
            one.start()
        time.sleep(0.05 + attempt * 0.003)
        os.kill(pid, signal.SIGSEGV)
        line = server.wait_log("worker-last-words", after=mark)
        done.set()
        device.sock.close()
        for one in threads:
            one.join()
        server.wait_replaced([pid])
        if re.search(r"doing=\"(reads from|writes to) a connection.* conn=[0-9a-f]+-0-", line):
            return
    raise harness.Failure("never caught in the middle: " + line)


# ---- what survives ------------------------------------------------------------------------------


async def test_totals_never_go_back(redis, make_server, user):
    server = make_server(workers="2")
    c = await Client.attach(server, user)
    for _ in range(10):
        produce(redis, user, message(user=user))
        await c.next()
    highest = server.status()["totals"]
    gauges = {"connections", "websockets", "connected_users_local", "devices_lagging",
              "sandboxed", "tls_handshakes_open", "queued_bytes", "memory_bytes"}
    for n in range(3):
        pids = server.worker_pids()
        for pid in pids:
            os.kill(pid, (signal.SIGKILL, signal.SIGSEGV)[n % 2])
        for _ in range(200):
            totals = server.status()["totals"]
            for group, rows in totals.items():
                for name, value in rows.items():
                    if name in gauges or re.search("_up$|_us$|_at_ms$|subscriptions$", name):
                        continue
                    assert value >= highest[group][name], name
            highest = totals
        assert server.wait_replaced(pids)["restarts"] == (n + 1) * 2
    assert highest["messages"]["deliveries"] == 10
    await c.close()


def test_who_dies_young_comes_back_later_each_time(make_server):
    server = make_server(workers="1", healthy=False)
    waits = []
    for n in range(4):
        mark = server.mark()
        assert server.kill_worker()["restarts"] == n + 1
        line = server.wait_log("worker-restart", after=mark)
        waits.append(int(re.search(r"in_ms=(\d+)", line).group(1)))
    assert waits == [100, 200, 400, 800]


# ---- the master runs short ----------------------------------------------------------------------


def test_a_master_without_descriptors_goes_on_when_there_are_some(make_server):
    server = make_server(workers="1", healthy=False)
    limits = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    used = max(int(fd) for fd in os.listdir("/proc/%d/fd" % server.pid))
    pid, mark = server.worker_pids()[0], server.mark()
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
    assert used >= 3
    os.kill(pid, signal.SIGKILL)
    server.wait_log("fork-failed .*Too many open files", after=mark)
    with server_socket(server) as waiting:  # the control socket: it waits, and is answered later
        waiting.sendall(b"status\n")
        server.wait_log("control-accept-failed", after=mark)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, limits)
        assert b'"ok":true' in waiting.recv(65536)
    server.wait_replaced([pid])
    assert server.http("GET", "/ws/health?live").status == 200


def server_socket(server):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(harness.TIMEOUT)
    s.connect(server.control)
    return s


def limit_processes(pid, uid, limit):
    """Done by the same user, which needs no privilege."""
    subprocess.run(["prlimit", "--pid", str(pid), "--nproc=" + limit], user=uid, group=uid,
                   extra_groups=[], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user that nobody else is")
def test_a_master_that_cannot_fork_tries_again(redis, make_server):
    """RLIMIT_NPROC of a user of its own: fork says EAGAIN, as it does when there is no memory."""
    uid = 61234
    directory = harness.make_directory()
    program = os.path.join(directory, "belfryd")
    shutil.copy(BELFRYD, program)
    server = harness.Belfry(redis, start=False, program=program, workers="1", log_level="info")
    try:
        for path in (server.directory, server.config, server.secret_file):
            os.chown(path, uid, uid)
        server.spawn([program, "--config", server.config], env=server.environment(),
                     user=uid, group=uid, extra_groups=[])
        server.wait_ready()
        pid, mark = server.worker_pids()[0], server.mark()
        limit_processes(server.pid, uid, "1:")
        os.kill(pid, signal.SIGKILL)
        server.wait_log("fork-failed .*Resource temporarily unavailable", after=mark)
        assert server.status()["workers"][0]["state"] == "backoff"
        answer = server.ask("reload", 60)  # cannot start its workers either, and says so
        assert answer["ok"] is False and "cannot start a worker" in answer["error"]
        limit_processes(server.pid, uid, "1000:")
        server.wait_replaced([pid])
        server.stop()
    finally:
        server.end()
        harness.remove_directory(directory)


async def test_a_full_disk_under_the_log_stops_nothing(redis, make_server, user):
    server = make_server(log_target="file:/dev/full")
    async with await Client.attach(server, user) as c:
        produce(redis, user, one := message(user=user))
        assert (await c.next())["id"] == one["id"]
        assert server.ask("reload")["ok"] is True
        produce(redis, user, two := message(user=user))
        assert (await c.next())["id"] == two["id"]
    assert server.kill_worker()["restarts"] == 1
    server.signal(signal.SIGUSR1)
    assert server.status()["state"] == "running"


async def test_without_redis_the_master_starts_reloads_and_stops(make_server, make_redis, user):
    redis = make_redis()
    redis.kill()
    server = make_server(use_redis=redis, healthy=False)
    assert server.health().json["status"] == "degraded"
    assert server.kill_worker()["restarts"] == 1
    assert server.ask("reload")["ok"] is True
    server.upgrade()
    redis.start()
    server.wait_ready()
    server.wait_healthy()
    async with await Client.attach(server, user):
        pass
