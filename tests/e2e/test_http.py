"""The HTTP endpoints (contract: HTTP endpoints)."""

import json
import signal
import socket

import pytest

import harness
from harness import (Client, assert_error, ask_http, message, raw_http, read_answer, token)

ADMIN = "root"


def admin_post(server, path, body=None, user=ADMIN):
    return server.http("POST", path, body=body, token=token(user, admin=True))


# ---- all endpoints ------------------------------------------------------------------------------


def test_unknown_paths_are_not_found(server):
    for path in ("/", "/ws/", "/ws/healthy", "/WS/health", "/ws/health/", "/metrics", "/ws/stats/x",
                 "/ws/test-message/", "/ws/test-message/a/b", "/../ws/health", "/%77s/health"):
        body = assert_error(server.http("GET", path), 404, "RESOURCE_NOT_FOUND")
        assert body["path"] == path


def test_other_methods_are_not_allowed_and_the_right_ones_are_named(server):
    for method, path, allowed in (("POST", "/ws/health", "GET"), ("DELETE", "/ws/stats", "GET"),
                                  ("GET", "/ws/broadcast", "POST"), ("PUT", "/ws/health", "GET"),
                                  ("GET", "/ws/test-message/alice", "POST"),
                                  ("HEAD", "/ws/broadcast", "POST"), ("BREW", "/ws", "GET")):
        answer = server.http(method, path)
        assert answer.status == 405
        assert allowed in answer.headers["Allow"].replace(" ", "").split(",")
        if method != "HEAD":
            assert_error(answer, 405, "HTTP_405")


def test_head_is_answered_as_get_without_the_body(server):
    with server.connect() as sock:
        get = raw_http(sock, b"GET /ws/health?live HTTP/1.1\r\nHost: x\r\n\r\n")
        sock.sendall(b"HEAD /ws/health?live HTTP/1.1\r\nHost: x\r\n\r\n"
                     b"GET /ws/nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        got = b""
        while b"/ws/nothing" not in got:
            got += sock.recv(65536)
        head, rest = got.split(b"\r\n\r\n", 1)
        assert head.startswith(b"HTTP/1.1 200")
        assert b"content-length: %d" % len(get.body) in head.lower()
        assert rest.startswith(b"HTTP/1.1 404")


def test_a_connection_serves_many_requests(server):
    import http.client
    connection = http.client.HTTPConnection(*server.address()[1], timeout=harness.TIMEOUT)
    try:
        for n in range(30):
            answer = ask_http(connection, "GET", "/ws/health" if n % 2 else "/nothing")
            assert answer.status == (200 if n % 2 else 404)
            if n == 0:
                sock = connection.sock
        assert connection.sock is sock, "the server closed in between"
    finally:
        connection.close()


def test_pipelined_requests_are_answered_in_order(server):
    asked = ["/ws/stats?token=" + token(ADMIN, admin=True), "/nothing", "/ws/health?live"]
    with server.connect() as sock:
        sock.sendall("".join("GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % p for p in asked).encode())
        stream = sock.makefile("rb")
        got = []
        for _ in asked:
            status = int(stream.readline().split()[1])
            length = 0
            while (line := stream.readline().strip()):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            got.append((status, json.loads(stream.read(length))))
    assert [status for status, _ in got] == [200, 404, 200]
    assert "statistics" in got[0][1] and got[2][1]["status"] == "alive"


def test_connection_close_and_http_1_0_end_after_the_answer(server):
    for request in (b"GET /ws/health?live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                    b"GET /ws/health?live HTTP/1.0\r\n\r\n"):
        with server.connect() as sock:
            sock.sendall(request)
            assert b"alive" in harness.read_to_end(sock)


def test_expect_100_continue_is_answered(server, user):
    body = b'{"a":1}'
    with server.connect() as sock:
        sock.sendall(("POST /ws/test-message/%s?message_type=X HTTP/1.1\r\nHost: x\r\n"
                      "Authorization: Bearer %s\r\nContent-Length: %d\r\n"
                      "Expect: 100-continue\r\n\r\n" % (user, token(user), len(body))).encode())
        assert sock.recv(100).startswith(b"HTTP/1.1 100")
        sock.sendall(body)
        assert_error(read_answer(sock), 404)


def test_a_chunked_body_is_read(server, user):
    with server.connect() as sock:
        answer = raw_http(sock, ("POST /ws/broadcast?message_type=X HTTP/1.1\r\nHost: x\r\n"
                                 "Authorization: Bearer %s\r\nTransfer-Encoding: chunked\r\n\r\n"
                                 "3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\n\r\n"
                                 % token(user, admin=True)).encode())
        assert answer.status == 200, answer.body


# ---- GET /ws/health -----------------------------------------------------------------------------


async def test_health_is_open_to_everyone_and_has_all_its_fields(server, user):
    async with await Client.attach(server, user), await Client.attach(server, user):
        harness.eventually(lambda: server.health().json["redis"]["last_delivery_probe_ms"],
                           "the first probe of every worker")
        answer = server.health()
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("application/json")
        body = answer.json
        assert body.pop("timestamp").endswith("Z")
        redis = body.pop("redis")
        memory = body.pop("memory")
        assert memory["status"] == "ok" and memory["max_worker_bytes"] > 100000
        assert body == {"status": "healthy", "total_connections": 2, "connected_users": 1,
                        "workers": 2}
        assert redis["status"] == "connected"
        assert 0 <= redis["latency_ms"] < 5000 and 0 < redis["last_delivery_probe_ms"] < 5000


def test_live_answers_while_the_process_works(server):
    answer = server.http("GET", "/ws/health?live")
    assert answer.status == 200 and answer.json["status"] == "alive"


# ---- GET /ws/stats ------------------------------------------------------------------------------


@pytest.mark.parametrize("method, path", [("GET", "/ws/stats"), ("POST", "/ws/broadcast"),
                                          ("POST", "/ws/test-message/somebody")])
def test_admin_endpoints_ask_for_a_token_and_for_an_admin(server, method, path):
    answer = server.http(method, path)
    assert_error(answer, 401, "AUTHENTICATION_ERROR")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    for bad in ("nonsense", token("root", admin=True, ttl=-100)):
        assert_error(server.http(method, path, token=bad), 401, "AUTHENTICATION_ERROR")
        assert_error(server.http(method, path + "?token=" + bad), 401, "AUTHENTICATION_ERROR")
    assert_error(server.http(method, path, token=token("alice")), 403, "AUTHORIZATION_ERROR")
    assert_error(server.http(method, path, token=token("alice", role="Admin")), 403)


async def test_stats_have_all_their_fields(server, user):
    async with await Client.attach(server, user), await Client.attach(server, user):
        body = server.stats()
        statistics = body["statistics"]
        assert statistics["active_connections"] == 2
        assert statistics["connected_users"] == 1
        assert statistics["total_connections_since_start"] >= 2
        assert statistics["uptime_seconds"] >= 0
        assert statistics["active_subscribers"] >= 2
        assert {"messages_received", "messages_invalid_json", "deliveries"} <= set(
            statistics["messages"])
        info = statistics["redis_stats"]
        assert info["connected_clients"] >= 1 and info["total_commands_processed"] > 0
        assert info["used_memory"] > 0 and isinstance(info["used_memory_human"], str)
        assert info["redis_version"][0].isdigit() and info["uptime_seconds"] >= 0
        status = server.status()
        assert body["manager_info"] == {
            "connected_users": 1, "total_connections": 2, "instance_id": status["instance_id"],
            "generation": status["generation"], "last_reload": status["last_reload"]}
        assert body["timestamp"]
        workers = body["workers"]
        assert [w["slot"] for w in workers] == sorted(w["slot"] for w in workers)
        assert len(workers) == 2
        assert len({w["pid"] for w in workers}) == 2
        for w in workers:
            assert w["state"] == "ready" and w["generation"] >= 1
        assert sum(w["active_connections"] for w in workers) == 2


def test_stats_end_the_connection_for_who_asks_for_it(server):
    with server.connect() as sock:
        request = "GET /ws/stats%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n"
        for query, is_kept in (("", True), ("?close", False)):
            sock.sendall((request % (query, token(ADMIN, admin=True))).encode())
            answer = read_answer(sock)
            assert answer.status == 200
            assert (answer.headers.get("Connection") != "close") == is_kept
        assert sock.recv(1) == b""


def test_stats_tell_how_the_last_reload_went(make_server):
    server = make_server(workers="1")
    assert server.stats()["manager_info"]["last_reload"] is None
    server.signal(signal.SIGHUP)
    status = server.wait_status(lambda s: s["last_reload"], "the reload")
    told = server.stats()["manager_info"]
    assert told["last_reload"] == status["last_reload"] and told["last_reload"]["ok"]
    assert told["generation"] == status["generation"] == 2


async def test_stats_are_the_same_whichever_worker_answers(server, user):
    async with await Client.attach(server, user):
        views, commands = [], []
        for _ in range(12):  # each over a connection of its own
            body = server.stats()
            commands.append(body["statistics"]["redis_stats"]["total_commands_processed"])
            views.append((body["statistics"]["active_connections"],
                          body["statistics"]["connected_users"],
                          tuple((w["slot"], w["pid"], w["active_connections"])
                                for w in body["workers"])))
        assert len(set(views)) == 1, views
        assert commands == sorted(commands), "totals do not go back"


def test_the_token_may_stand_in_the_query(server):
    assert server.http("GET", "/ws/stats?token=" + token(ADMIN, admin=True)).status == 200


# ---- POST /ws/test-message/{user_id} ------------------------------------------------------------


async def test_a_test_message_reaches_the_user_and_is_stored_as_its_type_says(redis, server, user):
    async with await Client.attach(server, user) as c:
        answer = admin_post(server, "/ws/test-message/%s?message_type=notification" % user,
                            '{"title":"é", "n":1.50, "test_message":"x",'
                            '"big":12345678901234567890}')
        assert answer.status == 200, answer.body
        body = answer.json
        assert body["success"] is True
        assert body["message"] == "Test message sent to user " + user
        assert body["message_type"] == "notification"
        text = await c.raw()
        got = json.loads(text)
        assert got["id"] == body["id"] and got["user_id"] == user
        assert got["type"] == "NOTIFICATION"  # a type of the table is written in event-case
        assert got["channel"] == "ws:user:" + user
        assert got["payload"] == {"title": "é", "n": 1.5, "big": 12345678901234567890,
                                  "test_message": True, "sent_by": ADMIN}
        assert '"n":1.50' in text.replace(" ", ""), "numbers are not re-encoded"
    key = "notifications:" + user
    assert redis.client.llen(key) == 1
    assert json.loads(redis.client.lindex(key, 0))["id"] == body["id"]
    assert 604000 < redis.client.ttl(key) <= 604800


async def test_a_user_may_send_to_itself_only(server, user):
    async with await Client.attach(server, user) as c:
        path = "/ws/test-message/%s?message_type=GOAL_ACHIEVED" % user
        assert server.http("POST", path, body={}, token=token(user)).status == 200
        got = await c.expect("GOAL_ACHIEVED")
        assert got["payload"] == {"test_message": True, "sent_by": user}
        assert_error(server.http("POST", path, body={}, token=token(user + "x")), 403,
                     "AUTHORIZATION_ERROR")


async def test_store_no_and_types_that_are_not_stored(redis, server, user):
    key = "notifications:" + user
    async with await Client.attach(server, user) as c:
        path = "/ws/test-message/%s?message_type=" % user
        for kind in ("NOTIFICATION&store=no", "PING", "DASHBOARD_UPDATE"):
            assert admin_post(server, path + kind, {"total_balance": 3}).status == 200
            await c.next()
        assert redis.client.llen(key) == 0
        body = assert_error(admin_post(server, path + "X&store=false", {}), 422)
        assert body["message"].startswith("store:")
        assert admin_post(server, path + "own_type&store=yes", {}).status == 200
        assert (await c.next())["type"] == "own_type"
        assert redis.client.llen(key) == 1
    snapshot = json.loads(redis.client.get("ws:snapshot:" + user))
    assert snapshot["total_balance"] == 3


async def test_the_user_id_may_be_percent_encoded(server):
    user = "ünï/ 100%"
    async with await Client.attach(server, user) as c:
        import urllib.parse
        path = "/ws/test-message/%s?message_type=X" % urllib.parse.quote(user, safe="")
        answer = admin_post(server, path, {})
        assert answer.status == 200 and answer.json["message"].endswith(user)
        await c.expect("X")


def test_a_user_who_is_connected_nowhere_is_not_found(redis, server, user):
    body = assert_error(admin_post(server, "/ws/test-message/%s?message_type=NOTIFICATION" % user,
                                   {}), 404, "RESOURCE_NOT_FOUND")
    assert user in body["message"]
    assert redis.client.llen("notifications:" + user) == 0


@pytest.mark.parametrize("query, body, field", [
    ("", "{}", "message_type"), ("?message_type=", "{}", "message_type"),
    ("?message_type=" + "x" * 65, "{}", "message_type"),
    ("?message_type=a%00b", "{}", "message_type"),
    ("?message_type=%0a", "{}", "message_type"), ("?message_type=%zz", "{}", "message_type"),
    ("?message_type=X", "", "body"), ("?message_type=X", "[1]", "body"),
    ("?message_type=X", "{", "body"), ("?message_type=X", b'{"a":"\xff"}', "body"),
    ("?message_type=X", "null", "body"), ("?message_type=X", "{}{}", "body"),
])
@pytest.mark.parametrize("path", ["/ws/test-message/alice", "/ws/broadcast"])
def test_what_is_missing_or_malformed_is_named(server, path, query, body, field):
    error = assert_error(admin_post(server, path + query, body), 422, "VALIDATION_ERROR")
    assert field in error["message"]


@pytest.mark.parametrize("name", ["%zz", "%", "%00", "%0a", "x" * 257, "%ff"])
def test_a_user_id_that_cannot_be_one_is_refused(server, name):
    answer = admin_post(server, "/ws/test-message/%s?message_type=X" % name, {})
    assert answer.status in (400, 422)
    assert_error(answer, answer.status)


# ---- POST /ws/broadcast -------------------------------------------------------------------------


async def test_a_broadcast_reaches_everyone_and_is_not_stored(redis, server, user):
    devices = [await Client.attach(server, user + str(n % 2)) for n in range(4)]
    try:
        answer = admin_post(server, "/ws/broadcast?message_type=SYSTEM_ALERT&priority=high",
                            {"message": "maintenance", "priority": "low", "broadcast_by": "x"})
        assert answer.status == 200, answer.body
        body = answer.json
        assert body["success"] is True and body["message_type"] == "SYSTEM_ALERT"
        assert body["recipients"] == 2
        assert body["message"] == "System message broadcasted to 2 users"
        for c in devices:
            got = await c.expect("SYSTEM_ALERT")
            assert got["id"] == body["id"]
            assert got["user_id"] == "system" and got["channel"] == "ws:broadcast"
            assert got["payload"] == {"message": "maintenance", "system_broadcast": True,
                                      "priority": "high", "broadcast_by": ADMIN}
    finally:
        for c in devices:
            await c.close()
    assert redis.client.llen("notifications:" + user + "0") == 0


async def test_the_priority_is_medium_unless_given_and_one_of_four(server, user):
    async with await Client.attach(server, user) as c:
        assert admin_post(server, "/ws/broadcast?message_type=X", {}).status == 200
        assert (await c.expect("X"))["payload"]["priority"] == "medium"
        for bad in ("urgent", "HIGH", "", "low "):
            path = "/ws/broadcast?message_type=X&priority=" + bad.replace(" ", "%20")
            error = assert_error(admin_post(server, path, {}), 422, "VALIDATION_ERROR")
            assert "priority" in error["message"]
        await c.nothing()


# ---- lower case ---------------------------------------------------------------------------------


async def test_event_case_lower_is_what_belfry_writes(redis, make_server, user):
    server = make_server(event_case="lower")
    async with await Client.open(server, user) as c:
        assert (await c.next())["type"] == "full_sync"
        assert admin_post(server, "/ws/test-message/%s?message_type=BUDGET_ALERT" % user,
                          {}).status == 200
        assert (await c.next())["type"] == "budget_alert"
        harness.produce(redis, user, one := message("AS_IT_CAME"))
        assert (await c.next())["type"] == "AS_IT_CAME"
        assert one


# ---- slow and impolite clients ------------------------------------------------------------------


def test_many_idle_connections_do_not_keep_health_from_answering(server):
    idle = [server.connect() for _ in range(100)]
    try:
        assert server.health().status == 200
    finally:
        for sock in idle:
            sock.close()


def test_a_client_that_resets_while_its_answer_is_awaited_harms_nobody(redis, server):
    request = ("GET /ws/stats?token=%s HTTP/1.1\r\nHost: x\r\n\r\n"
               % token(ADMIN, admin=True)).encode()
    redis.pause()
    try:
        for _ in range(10):
            with server.connect() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                sock.sendall(request)
    finally:
        redis.resume()
    server.wait_healthy()
    assert server.stats()["statistics"]["active_connections"] == 0


# ---- explain ------------------------------------------------------------------------------------


def test_explain_is_for_administrators_and_wants_both_names(server):
    assert_error(server.http("GET", "/ws/explain?user=a&id=b"), 401)
    assert_error(server.http("GET", "/ws/explain?user=a&id=b", token=token("a")), 403)
    for query in ("", "?user=a", "?id=b", "?user=&id=b", "?user=a&id=", "?user=%zz&id=b",
                  "?user=a&id=" + "x" * 1025, "?user=" + "x" * 257 + "&id=b"):
        answer = server.http("GET", "/ws/explain" + query, token=token(ADMIN, admin=True))
        assert_error(answer, 422)
    answer = server.http("GET", "/ws/explain?user=nobody&id=b", token=token(ADMIN, admin=True))
    assert answer.status == 200
    assert not answer.json["known"] and answer.json["devices"] == []
    assert {r["fate"] for r in answer.json["records"]} <= {"started", "link-lost", "link-back"}
