"""What the service manager is told, and what it gives: sd_notify(3), sd_listen_fds(3).

A socket of ours stands in for it.
"""

import os
import re
import signal
import socket
import struct
import subprocess
import time

import pytest

import harness
from harness import BELFRYD, Belfry, Client, message, produce


class Manager:
    """The end that listens at NOTIFY_SOCKET; tells who sent what."""

    def __init__(self):
        self.directory = harness.make_directory()
        self.path = os.path.join(self.directory, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind(self.path)
        self.seen = []

    def next(self, seconds):
        self.socket.settimeout(max(seconds, 0.001))
        data, ancillary, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(12))
        sender = struct.unpack("iII", ancillary[0][2])[0]
        words = dict(line.split("=", 1) for line in data.decode().split("\n"))
        self.seen.append((sender, words))
        return self.seen[-1]

    def expect(self, check, what, seconds=None):
        """The next message for which check is true; what came before it is passed over."""
        left = harness.deadline(seconds)
        while True:
            try:
                sender, words = self.next(left())
            except (socket.timeout, BlockingIOError):
                raise harness.Failure("not told: %s; told: %s" % (
                    what, [w for _, w in self.seen][-8:])) from None
            if check(words):
                return sender, words

    def expect_word(self, name, value=None, seconds=None):
        return self.expect(lambda w: name in w and (value is None or w[name] == value),
                           "%s=%s" % (name, value or "..."), seconds)

    def count(self, name, seconds):
        """How many messages with that word come within the time."""
        left, n = harness.deadline(seconds), 0
        while left() > 0:
            try:
                n += name in self.next(left())[1]
            except (socket.timeout, BlockingIOError):
                break
        return n

    def end(self):
        self.socket.close()
        harness.remove_directory(self.directory)


@pytest.fixture
def manager():
    one = Manager()
    yield one
    one.end()


@pytest.fixture
def managed(redis, manager):
    """Makes servers under that manager."""
    made = []

    def make(variables=None, **options):
        server = Belfry(redis, start=False, **options)
        server.variables = dict(variables or {}, NOTIFY_SOCKET=manager.path)
        made.append(server)
        return server.start()

    yield make
    harness.end_all(made)


# ---- sd_notify ----------------------------------------------------------------------------------


async def test_readiness_and_how_many_are_served(managed, manager, user):
    server = managed()
    sender, words = manager.expect_word("READY", "1")
    assert sender == server.pid and words["MAINPID"] == str(server.pid)
    assert words["STATUS"] == "2 workers, 0 connections"
    devices = [await Client.attach(server, user) for _ in range(3)]
    manager.expect_word("STATUS", "2 workers, 3 connections")
    for c in devices:
        await c.close()
    manager.expect_word("STATUS", "2 workers, 0 connections")


def test_status_is_told_at_a_modest_rate(managed, manager):
    began = time.monotonic()
    server = managed()
    manager.expect_word("READY")
    for _ in range(3):
        server.kill_worker()
    told = manager.count("STATUS", 4)
    assert told <= 1 + (time.monotonic() - began) // 5


def test_a_reload_is_told_from_begin_to_end(managed, manager):
    server = managed()
    manager.expect_word("READY")
    before_us = time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6
    server.signal(signal.SIGHUP)
    sender, words = manager.expect_word("RELOADING", "1")
    assert sender == server.pid
    assert before_us <= int(words["MONOTONIC_USEC"]) <= time.clock_gettime(
        time.CLOCK_MONOTONIC) * 1e6
    words = manager.expect_word("READY", "1")[1]
    assert words["STATUS"] == "2 workers, 0 connections"


def test_a_refused_reload_ends_too_and_says_why(managed, manager):
    server = managed()
    manager.expect_word("READY")
    server.write_config(ping_interval="never")
    server.signal(signal.SIGHUP)
    manager.expect_word("RELOADING", "1")
    words = manager.expect_word("READY", "1")[1]
    assert words["STATUS"].startswith("reload refused: ") and "ping-interval" in words["STATUS"]
    manager.expect(lambda w: re.match("2 workers.*failed", w.get("STATUS", "")), "it is remembered")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_the_end_is_told(managed, manager, number):
    server = managed(drain_time="100ms")
    manager.expect_word("READY")
    server.signal(number)
    assert manager.expect_word("STOPPING", "1")[0] == server.pid
    assert server.wait() == 0


def test_an_upgrade_moves_mainpid_and_is_no_stop(managed, manager):
    server = managed(variables={"WATCHDOG_USEC": "800000"}, drain_time="500ms")
    old = server.pid
    manager.expect_word("READY")
    server.upgrade()
    sender, words = manager.expect(lambda w: w.get("MAINPID") == str(server.pid), "the new pid")
    if sender == old:
        sender, words = manager.expect_word("MAINPID", str(server.pid))
    assert sender == server.pid and words["READY"] == "1"
    assert server.child.wait(harness.TIMEOUT) == 0
    assert not any("STOPPING" in words for _, words in manager.seen)
    assert manager.expect_word("WATCHDOG")[0] == server.pid
    server.stop()
    assert manager.expect_word("STOPPING")[0] == server.pid


# ---- the watchdog -------------------------------------------------------------------------------


def test_the_watchdog_is_fed_often_enough(managed, manager):
    server = managed(variables={"WATCHDOG_USEC": "1200000"})
    manager.expect_word("READY")
    with harness.Stopwatch() as watch:
        for _ in range(9):
            manager.expect_word("WATCHDOG")
        assert watch.is_within(4.6), "three times as often; %r" % watch
    server.signal(signal.SIGSTOP)
    try:
        manager.count("WATCHDOG", 0.2)  # what was told before
        assert manager.count("WATCHDOG", 1) == 0, "its loop does not turn"
    finally:
        server.signal(signal.SIGCONT)
    manager.expect_word("WATCHDOG")


def test_the_watchdog_is_not_fed_while_no_worker_works(managed, manager):
    server = managed(variables={"WATCHDOG_USEC": "600000"})
    manager.expect_word("READY")
    workers = server.worker_pids()
    os.kill(workers[0], signal.SIGSTOP)
    mark = server.mark()
    try:
        manager.count("WATCHDOG", 6)  # it is silent for longer than a worker may be
        for _ in range(3):
            manager.expect_word("WATCHDOG")  # one hung worker is the supervisor's business
        os.kill(workers[1], signal.SIGSTOP)
        server.wait_log("watchdog-not-fed", after=mark)
        manager.count("WATCHDOG", 0.2)
        assert manager.count("WATCHDOG", 1.5) == 0
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    manager.expect_word("WATCHDOG")


@pytest.mark.parametrize("variables", [
    {}, {"WATCHDOG_USEC": "200000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "x"},
    {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "-5"}])
def test_nobody_who_waits_is_fed_nothing(managed, manager, variables):
    managed(variables=variables)
    manager.expect_word("READY")
    assert manager.count("WATCHDOG", 0.7) == 0


# ---- socket activation --------------------------------------------------------------------------


def listening(address, family=socket.AF_INET):
    s = socket.socket(family)
    s.bind(address)
    s.listen(64)
    return s


class Activated(Belfry):
    """Started with sockets at descriptor 3 and on, as the service manager does it."""

    def give(self, *sockets, names=""):
        self.sockets = sockets
        self.names = names
        return self

    def spawn(self, argv, env=None, pipe="stderr", **how):
        first, sockets = 3, self.sockets

        def arrange():
            high = [os.dup(s.fileno()) for s in sockets]
            for n, fd in enumerate(high):
                moved = os.dup2(fd, 100 + n)
                os.dup2(moved, first + n, inheritable=True)

        env = dict(env, LISTEN_FDS=str(len(sockets)), LISTEN_FDNAMES=self.names)
        super().spawn(["/bin/sh", "-c", 'LISTEN_PID=$$ exec "$0" "$@"', *argv], env, pipe,
                      preexec_fn=arrange, pass_fds=range(first, first + len(sockets)), **how)


@pytest.fixture
def activate(redis):
    made, sockets = [], []

    def make(*given, names="", **options):
        sockets.extend(given)
        server = Activated(redis, start=False, **options).give(*given, names=names)
        made.append(server)
        return server.start()

    yield make
    harness.end_all(made)
    for s in sockets:
        s.close()


def port_of(s):
    return "127.0.0.1:%d" % s.getsockname()[1]


async def test_sockets_that_the_options_name_are_used(redis, activate, user, tmp_path):
    path = str(tmp_path / "ws.sock")
    os.chmod(tmp_path, 0o755)
    tcp, metrics = listening(("127.0.0.1", 0)), listening(("127.0.0.1", 0))
    local = listening(path, socket.AF_UNIX)
    os.chmod(path, 0o777)
    server = activate(tcp, local, metrics, names="web:local:metrics",
                      listen=[port_of(tcp), "unix:" + path], metrics_listen=port_of(metrics))
    for name in ("web", "local", "metrics"):
        server.wait_log("socket-received .*name=%s" % name)
    assert server.addresses == [port_of(tcp), "unix:" + path]
    for index in (0, 1):
        who = "%s-%d" % (user, index)
        async with await Client.attach(server, who, index=index) as c:
            produce(redis, who, one := message(user=who))
            assert (await c.next())["id"] == one["id"]
    assert server.metrics().status == 200
    server.stop()
    assert os.path.exists(path), "the file is the manager's"


def test_who_connects_while_the_server_is_away_is_served_by_the_next(redis, activate):
    tcp = listening(("127.0.0.1", 0))
    server = activate(tcp, listen=port_of(tcp))
    server.stop()
    with server.connect() as waiting:
        waiting.sendall(b"GET /ws/health?live HTTP/1.1\r\nHost: x\r\n\r\n")
        server.start()
        assert harness.read_answer(waiting).status == 200
    server.signal(signal.SIGQUIT)
    assert server.wait() == 0
    server.connect().close()  # it is not refused: the socket was not shut down


def test_activated_sockets_survive_reload_and_upgrade(redis, activate):
    tcp = listening(("127.0.0.1", 0))
    server = activate(tcp, listen=port_of(tcp), drain_time="300ms")
    inode = os.fstat(tcp.fileno()).st_ino

    def is_held():
        pids = [server.pid] + server.worker_pids()
        return all(any(os.stat("/proc/%d/fd/%s" % (pid, fd)).st_ino == inode
                       for fd in os.listdir("/proc/%d/fd" % pid)) for pid in pids)

    assert is_held()
    assert server.ask("reload")["ok"] is True
    server.upgrade()
    server.wait_status(lambda s: all(w["state"] == "ready" for w in s["workers"]), "ready")
    assert is_held() and server.http("GET", "/ws/health?live").status == 200
    # Away, and back: the master keeps what it was given.
    server.write_config(listen="127.0.0.1:0")
    assert server.ask("reload")["ok"] is True
    server.write_config(listen=port_of(tcp))
    assert server.ask("reload")["ok"] is True
    server.wait_ready()
    assert is_held()


def test_sockets_that_nobody_names_are_told(redis, activate, tmp_path):
    named, unnamed = listening(("127.0.0.1", 0)), listening(("127.0.0.1", 0))
    deaf = socket.socket()
    server = activate(named, unnamed, deaf, listen=port_of(named))
    server.wait_log("socket-unused .*" + port_of(unnamed))
    server.wait_log("socket-refused .*no listening stream socket")
    assert server.health().status in (200, 503)


def test_sockets_for_another_process_are_left_alone(redis):
    server = Belfry(redis, start=False)
    server.variables = {"LISTEN_PID": "1", "LISTEN_FDS": "3"}
    try:
        server.start()
        assert "socket-" not in server.log_text()
        server.stop()
    finally:
        server.end()


# ---- the unit -----------------------------------------------------------------------------------


def test_the_units_command_line_is_one_that_belfryd_takes(redis):
    """Every option that ExecStart names is there; the rest of the unit is the lint's business."""
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "../../etc/belfryd.service.in"), encoding="ascii") as f:
        unit = f.read()
    assert re.search("^Type=notify-reload$", unit, re.M)
    idle = Belfry(redis, start=False)
    try:
        for line in re.findall(r"^Exec\w+=@sbindir@/belfryd (.*)$", unit, re.M):
            arguments = line.replace("@sysconfdir@/belfry/belfry.conf", idle.config).split()
            done = subprocess.run([BELFRYD, "--test-config", *arguments], timeout=harness.TIMEOUT,
                                  env=idle.environment(), stdout=subprocess.PIPE)
            assert done.returncode == 0, line
    finally:
        idle.end()
