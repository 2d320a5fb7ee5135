"""Many who come at once: each is served, who says nothing yet and who is gone again, too.

A worker that is stopped for a moment finds them all in the kernel's queue. Contract: GET /ws.
"""

import os
import re
import signal
import socket
import struct

import pytest

import harness
from harness import RawClient, token, unique

EACH = 150  # of every kind; more than are looked at without a word from epoll


@pytest.fixture(scope="module")
def server(redis):
    server = harness.Belfry(redis, workers="1", metrics_listen="127.0.0.1:0")
    yield server
    server.end()


def request_of(user):
    return RawClient.request(query="token=" + token(user))


def crowd_of(server, count):
    socks = [server.connect() for _ in range(count)]
    for sock in socks:
        sock.settimeout(harness.TIMEOUT)
    return socks


def assert_live(sock):
    """101 and FULL_SYNC: the first bytes of either."""
    answer = b""
    while b"FULL_SYNC" not in answer:
        piece = sock.recv(65536)
        assert piece, answer
        answer += piece
    assert answer.startswith(b"HTTP/1.1 101 ")


def vanish(sock):
    """A reset, not a FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def websockets(server):
    return server.health().json["total_connections"]


def test_all_who_came_while_the_worker_slept_are_served(server):
    users = [unique("crowd") for _ in range(EACH)]
    worker = server.worker_pids()[0]
    crowd = {}
    os.kill(worker, signal.SIGSTOP)
    try:
        for kind in ("silent", "ready", "half", "gone", "hung up"):
            crowd[kind] = crowd_of(server, EACH)
        for sock, user in zip(crowd["ready"], users):
            sock.sendall(request_of(user))
        for sock, user in zip(crowd["half"], users):
            sock.sendall(request_of(user)[:60])
        for sock in crowd["gone"]:
            vanish(sock)
        for sock in crowd["hung up"]:
            sock.close()
    finally:
        os.kill(worker, signal.SIGCONT)
    try:
        for sock in crowd["ready"]:
            assert_live(sock)
        assert websockets(server) == EACH
        for sock, user in zip(crowd["half"], users):
            sock.sendall(request_of(user)[60:])
        for sock, user in zip(crowd["silent"], users):
            sock.sendall(request_of(user))
        for sock in crowd["half"] + crowd["silent"]:
            assert_live(sock)
        assert websockets(server) == 3 * EACH
    finally:
        for kind in ("silent", "ready", "half"):
            for sock in crowd.get(kind, ()):
                sock.close()
    harness.eventually(lambda: websockets(server) == 0, "all have left")
    harness.eventually(lambda: re.search(r"^belfry_connections\{worker=\"0\"\} [1-3]$",
                                         server.metrics().text, re.M),
                       "no connection is left but those that ask")


def test_messages_come_and_others_attach_while_a_crowd_says_nothing(server, redis):
    silent = crowd_of(server, EACH)
    try:
        user = unique("one")
        with RawClient(server, "token=" + token(user)) as c:
            assert c.receive_json()["type"] == "FULL_SYNC"
            body = harness.message(user=user)
            harness.produce(redis, user, body)
            assert c.receive_json()["id"] == body["id"]
    finally:
        for sock in silent:
            sock.close()
