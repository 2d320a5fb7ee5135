"""What an idle connection costs in memory (workers/README: how it is kept small)."""

import re
import resource

import pytest

import harness
from harness import Belfry, RawClient, token, unique

FEW, MANY = 500, 4000
BYTES_AT_MOST = 1000
BYTES_APART = 60  # with and without compression: some pages of the heap, no more


@pytest.fixture(autouse=True)
def many_files():
    if harness.is_sanitized():
        pytest.skip("AddressSanitizer keeps what was freed")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < MANY + 500:
        pytest.skip("a process may open %d files only" % hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def own_bytes(belfry):
    """PSS of the master and its workers but for programs and libraries, whose share depends on who
    else uses them at the moment."""
    total = 0
    for pid in [belfry.pid, *belfry.worker_pids()]:
        with open("/proc/%d/smaps_rollup" % pid, encoding="ascii") as f:
            for kind, kilobytes in re.findall(r"^Pss_(\w+): +(\d+) kB", f.read(), re.M):
                total += int(kilobytes) * 1024 if kind in ("Anon", "Shmem") else 0
    return total


def come(belfry, count, headers=()):
    """Users with one device each, all live."""
    clients = []
    for _ in range(count):
        client = RawClient(belfry, "token=" + token(unique()), headers=headers)
        assert client.receive_json()["type"] == "FULL_SYNC"
        clients.append(client)
    return clients


def bytes_of_each(belfry, headers):
    """What a user with one idle device costs; some were there before."""
    clients = come(belfry, FEW, headers)
    before = own_bytes(belfry)
    clients += come(belfry, MANY - FEW, headers)
    each = (own_bytes(belfry) - before) / (MANY - FEW)
    assert ("permessage-deflate" in clients[0].head) == bool(headers)
    for client in clients:
        client.sock.close()
    print("%.0f bytes for each connection" % each)
    return each


def test_an_idle_connection_of_a_user_of_its_own_costs_less_than_a_kilobyte(make_server):
    server = {"workers": "1", "compression": "on", "ping_interval": "10m"}  # nobody answers one
    plain = bytes_of_each(make_server(**server), ())
    deflated = bytes_of_each(make_server(**server),
                             ("Sec-WebSocket-Extensions: permessage-deflate",))
    assert 100 < plain < BYTES_AT_MOST
    assert 100 < deflated < BYTES_AT_MOST
    assert abs(deflated - plain) < BYTES_APART


def test_memory_of_those_who_left_goes_back(make_server):
    belfry: Belfry = make_server(workers="1", ping_interval="10m")  # nobody here answers one
    clients = come(belfry, FEW)
    empty = own_bytes(belfry)
    clients += come(belfry, MANY - FEW)
    full = own_bytes(belfry)
    for client in clients[1::2] + clients[2::2]:  # one stays: the first who came
        client.sock.close()
    harness.eventually(lambda: own_bytes(belfry) - empty < (full - empty) / 2, "memory goes back")
    clients[0].sock.close()
