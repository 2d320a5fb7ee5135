"""Workers in their sandbox: what the kernel says of it, and that what they need goes on inside."""

import os
import signal

import pytest

import harness
from harness import Belfry, Client, eventually, message, produce


def status_of(pid):
    with open("/proc/%d/status" % pid, encoding="ascii") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def is_filtered(belfry):
    """Built with libseccomp, and the kernel took the filter: the workers' own word."""
    return "seccomp=yes" in belfry.wait_log("worker-sandboxed")


@pytest.fixture(autouse=True)
def possible(request):
    if harness.is_sanitized():
        pytest.skip("sanitizers need more than the sandbox allows")
    if "server" in request.fixturenames:
        belfry = request.getfixturevalue("server")
        if "worker-sandboxed" not in belfry.log_text():
            pytest.skip("built without a sandbox")


def test_workers_have_no_privileges_and_a_filter(server):
    for pid in server.worker_pids():
        status = status_of(pid)
        for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(status[name], 16) == 0, (name, status[name])
        if os.geteuid() == 0:
            assert int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"].strip() == "1"
        assert status["Seccomp"].strip() == ("2" if is_filtered(server) else "0")
        assert (server.stats()["workers"][0]["process"]["sandboxed"] == 1) == is_filtered(server)


def test_the_master_has_none_of_it(server):
    """It starts workers and, at USR2, another program."""
    status = status_of(server.pid)
    assert status["NoNewPrivs"].strip() == status_of(os.getpid())["NoNewPrivs"].strip()
    assert status["Seccomp"].strip() == status_of(os.getpid())["Seccomp"].strip()


def test_it_can_be_switched_off_by_a_reload(make_server):
    belfry = make_server()
    if not is_filtered(belfry):
        pytest.skip("no filter here")
    belfry.write_config(sandbox="off")
    mark = belfry.mark()
    belfry.signal(signal.SIGHUP)
    belfry.wait_log(" reloaded ", after=mark)
    eventually(lambda: len(belfry.worker_pids()) == 2 and all(
        status_of(pid)["Seccomp"].strip() == "0" for pid in belfry.worker_pids()), "no filter")
    assert "worker-sandboxed" not in belfry.log_text(mark)
    for pid in belfry.worker_pids():
        assert status_of(pid)["NoNewPrivs"].strip() == "1"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_redis_is_found_again_by_address_and_by_name(make_redis, make_server, user, host):
    redis = make_redis(tcp=True, appendonly=True)
    belfry: Belfry = make_server(use_redis=redis,
                                 redis_url="redis://%s:%d" % (host, redis.port))
    async with await Client.attach(belfry, user) as c:
        sent = [message(user=user)]
        produce(redis, user, sent[0])
        assert (await c.next())["id"] == sent[0]["id"]
        mark = belfry.mark()
        redis.restart()
        eventually(lambda: belfry.log_text(mark).count("redis-up") == 4, "two links of two workers")
        eventually(lambda: belfry.health().status == 200, "healthy again")
        sent.append(message(user=user))
        produce(redis, user, sent[1])
        assert (await c.next())["id"] == sent[1]["id"]
    assert all(w["state"] == "ready" and w["restarts"] == 0 for w in belfry.status()["workers"])


async def test_a_worker_in_it_may_die_and_tells_of_what(make_server, user):
    belfry = make_server(workers="1")
    pid = belfry.worker_pids()[0]
    mark = belfry.mark()
    os.kill(pid, signal.SIGSYS)  # what a forbidden call ends in
    assert "cause=SYS" in belfry.wait_log("worker-last-words", after=mark)
    eventually(lambda: belfry.worker_pids() and belfry.worker_pids() != [pid], "another worker")
    async with await Client.attach(belfry, user) as c:
        assert (await c.command("ping"))["type"] == "pong"
