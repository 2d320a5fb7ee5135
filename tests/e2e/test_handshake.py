"""GET /ws: what is accepted, what is refused, and how (contract: GET /ws; RFC 6455, section 4)."""

import re
import socket
import time

import pytest

import harness
from harness import Client, RawClient, Refused, assert_error, raw_http, read_answer, token


def ask(server, request):
    with server.connect() as sock:
        return raw_http(sock, request)


def upgrade(server, **how):
    return ask(server, RawClient.request(**how))


# ---- accepted -----------------------------------------------------------------------------------


def test_the_accept_key_is_computed_as_the_rfc_says(server, user):
    with RawClient(server, "token=" + token(user)) as c:
        assert c.status == 101
        assert ("sec-websocket-accept: " + RawClient.ACCEPT).lower() in c.head.lower()
        assert "upgrade: websocket" in c.head.lower()
        assert c.receive_json()["type"] == "FULL_SYNC"


async def test_a_token_may_come_in_the_query(server, user):
    async with await Client.attach(server, user) as c:
        assert c.sync["user_id"] == user


async def test_a_token_may_come_as_authorization_bearer(server, user):
    headers = {"Authorization": "Bearer " + token(user)}
    async with await Client.attach(server, headers=headers) as c:
        assert c.sync["user_id"] == user


async def test_a_token_may_come_as_subprotocol_and_only_belfry_v1_is_chosen(server, user):
    offered = ["bearer." + token(user), "belfry.v1"]
    async with await Client.attach(server, subprotocols=offered) as c:
        assert c.ws.subprotocol == "belfry.v1"
        assert c.sync["user_id"] == user


@pytest.mark.parametrize("shape", ["payload", "beside"])
async def test_a_token_may_come_as_the_first_frame(server, user, shape):
    frame = {"type": "auth"}
    if shape == "payload":
        frame["payload"] = {"token": token(user)}
    else:
        frame["token"] = token(user)
    async with await Client.open(server) as c:
        await c.send(frame)
        reply = await c.expect("auth_ok")
        assert reply["type"] == "auth_ok"
        assert reply["payload"]["expires_at"].endswith("Z")
        assert (await c.expect("FULL_SYNC"))["user_id"] == user


async def test_an_empty_token_in_the_query_counts_as_absent(server, user):
    async with await Client.open(server, query={"token": ""}) as c:
        await c.send({"type": "AUTH", "payload": {"token": token(user)}})
        assert (await c.expect("AUTH_OK"))["type"] == "AUTH_OK"
        await c.expect("FULL_SYNC")


def test_a_frame_in_the_same_packet_as_the_request_is_read(server, user):
    ping = RawClient.frame(1, "ping")
    with RawClient(server, "token=" + token(user), after=ping) as c:
        got = {c.receive()[1][:4] for _ in range(2)}
        assert b"pong" in got


def test_a_request_may_arrive_byte_by_byte(server, user):
    with server.connect() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in RawClient.request(query="token=" + token(user)):
            sock.send(bytes([byte]))
        assert read_answer(sock, with_body=False).status == 101


def test_header_names_and_upgrade_words_are_compared_without_case(server, user):
    request = ("GET /ws?token=%s HTTP/1.1\r\nhost: x\r\nUPGRADE: WebSocket\r\n"
               "connection: keep-alive, upgrade\r\nsec-websocket-version: 13\r\n"
               "sec-websocket-key: %s\r\n\r\n" % (token(user), RawClient.KEY))
    with server.connect() as sock:
        sock.sendall(request.encode())
        assert read_answer(sock, with_body=False).status == 101


async def test_the_profile_has_an_alias_path_and_writes_lower_case_and_naive_times(
        make_server, user):
    server = make_server(profile="finance-tracker")
    async with await Client.open(server, user, path="/ws/realtime") as c:
        sync = await c.next()
        assert sync["type"] == "full_sync"
        assert not sync["timestamp"].endswith("Z") and "+" not in sync["timestamp"]
    for refusal in (upgrade(server, version=8), server.http("GET", "/nowhere"),
                    ask(server, b"GARBAGE\r\n\r\n")):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+", refusal.json["timestamp"])


async def test_the_alias_path_is_unknown_without_the_profile(server, user):
    with pytest.raises(Refused) as refused:
        await Client.open(server, user, path="/ws/realtime")
    assert refused.value.status == 404


async def test_echo_returns_everything_when_it_is_on(make_server, user):
    server = make_server(echo="on")
    async with await Client.open(server, path="/echo") as c:
        for text in ("ping", "", "é" * 1000, "{"):
            await c.send(text)
            assert await c.raw() == text
        await c.send(b"\0\xff")
        assert await c.raw() == b"\0\xff"


def test_echo_is_unknown_when_it_is_off(server):
    assert_error(upgrade(server, path="/echo"), 404)


# ---- refused ------------------------------------------------------------------------------------


def test_an_upgrade_of_another_path_is_not_found(server):
    assert_error(upgrade(server, path="/wss"), 404, "RESOURCE_NOT_FOUND")


def test_another_method_is_not_allowed(server):
    answer = ask(server, b"POST /ws HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    assert_error(answer, 405, "HTTP_405")
    assert "GET" in answer.headers["Allow"]


def test_a_request_without_upgrade_is_refused(server):
    answer = ask(server, b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.status in (400, 426)
    assert_error(answer, answer.status)


@pytest.mark.parametrize("version", ["8", "12", "14", "x", "13, 8"])
def test_another_protocol_version_is_told_which_one_is_spoken(server, version):
    answer = upgrade(server, version=version)
    assert answer.status in (400, 426) if version in ("x", "13, 8") else answer.status == 426
    if answer.status == 426:
        assert answer.headers["Sec-WebSocket-Version"] == "13"
    assert_error(answer, answer.status)


@pytest.mark.parametrize("key", [None, "", "short", "dGhlIHNhbXBsZSBub25jZQ", "A" * 24,
                                 "!!!!IHNhbXBsZSBub25jZQ=="])
def test_a_missing_or_bad_key_is_a_bad_request(server, key):
    assert_error(upgrade(server, key=key), 400)


def test_http_1_0_cannot_upgrade(server):
    request = RawClient.request().replace(b"HTTP/1.1", b"HTTP/1.0")
    assert_error(ask(server, request), 400)


@pytest.mark.parametrize("request_bytes", [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nHost : x\r\n\r\n",
    b"GET /ws HTTP/1.1\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
])
def test_what_is_no_http_is_a_bad_request_and_ends_the_connection(server, request_bytes):
    with server.connect() as sock:
        answer = raw_http(sock, request_bytes)
        assert_error(answer, 400)
        assert harness.read_to_end(sock) == b""


@pytest.mark.parametrize("request_line", [b"GET /ws", b"GET /ws HTTP/0.9", b"GET /ws HTTP/2.0"])
def test_other_versions_of_http_are_not_spoken(server, request_line):
    answer = ask(server, request_line + b"\r\nHost: x\r\n\r\n")
    assert answer.status in (400, 505)
    assert_error(answer, answer.status)


def test_a_head_that_is_too_large_is_refused(server):
    answer = ask(server, RawClient.request(headers=["X-Padding: " + "x" * 20000]))
    assert assert_error(answer, 431)["path"] == "/ws"


def test_many_small_headers_are_refused_too(server):
    answer = ask(server, RawClient.request(headers=["X-%d: 1" % i for i in range(3000)]))
    assert_error(answer, 431)


def test_a_body_that_is_too_large_is_refused(server, user):
    request = ("POST /ws/test-message/x?message_type=NOTIFICATION HTTP/1.1\r\nHost: x\r\n"
               "Authorization: Bearer %s\r\nContent-Length: 70000\r\n\r\n" % token(user))
    body = assert_error(ask(server, request.encode() + b" " * 1000), 413)
    assert body["path"] == "/ws/test-message/x"


def test_a_silent_connection_ends_after_handshake_timeout(make_server):
    server = make_server(handshake_timeout="300ms")
    with harness.Stopwatch() as watch, server.connect() as quiet, server.connect() as slow:
        slow.sendall(b"GET /ws HTTP/1.1\r\n")
        harness.read_to_end(quiet)
        harness.read_to_end(slow)
        assert 0.2 < watch.seconds() and watch.is_within(5), watch
    assert server.health().status == 200


# ---- Origin -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strict(make_shared):
    return make_shared(origins=["https://app.example.com", "http://localhost:3000"],
                       auth_failure="http")


async def test_a_listed_origin_may_connect_in_any_case_of_its_host(strict, user):
    for origin in ("https://app.example.com", "http://localhost:3000", "https://APP.example.com"):
        async with await Client.attach(strict, user, origin=origin):
            pass


async def test_a_client_without_origin_may_connect(strict, user):
    async with await Client.attach(strict, user):
        pass


@pytest.mark.parametrize("origin", ["https://evil.example.com", "https://app.example.com.evil.com",
                                    "http://app.example.com", "http://localhost:3001", "null",
                                    "https://app.example.com:8443"])
def test_an_origin_that_is_not_listed_is_forbidden(strict, user, origin):
    answer = upgrade(strict, query="token=" + token(user), headers=["Origin: " + origin])
    assert_error(answer, 403, "AUTHORIZATION_ERROR")


async def test_any_origin_may_connect_when_none_is_configured(server, user):
    async with await Client.attach(server, user, origin="https://anywhere.example.com"):
        pass


# ---- bad tokens ---------------------------------------------------------------------------------


async def test_a_bad_token_is_refused_in_http_when_so_configured(strict):
    for bad in (token(secret="another secret, just as long as the first one"), "nonsense"):
        answer = upgrade(strict, query="token=" + bad)
        assert_error(answer, 401, "AUTHENTICATION_ERROR")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def test_a_bad_token_completes_the_handshake_and_closes_by_default(server):
    c = await Client.open(server, token_text="nonsense")
    assert await c.closed() == (4001, "authentication failed")
    assert c.seen == []


@pytest.mark.parametrize("first", ["ping", "{", '{"type":"ping"}', '{"type":"auth"}',
                                   '{"type":"auth","payload":{"token":"x"}}', b"\x00"])
async def test_a_first_frame_that_is_no_good_auth_closes(server, first):
    c = await Client.open(server)
    await c.send(first)
    assert (await c.closed())[0] in ((1003,) if isinstance(first, bytes) else (4001,))
    assert c.seen == []


async def test_an_auth_frame_that_comes_too_late_closes(make_server):
    server = make_server(auth_timeout="300ms")
    began = time.monotonic()
    c = await Client.open(server)
    assert await c.closed() == (4001, "authentication failed")
    assert time.monotonic() - began > 0.25
    assert server.stats()["statistics"]["closes"]["closed_auth"] == 1


# ---- limits on connections ----------------------------------------------------------------------


async def test_above_max_connections_upgrades_get_503_and_health_still_answers(make_server, user):
    server = make_server(max_connections="2")
    async with await Client.attach(server, user), await Client.attach(server, user) as second:
        answer = upgrade(server, query="token=" + token(user))
        assert_error(answer, 503)
        assert int(answer.headers["Retry-After"]) >= 1
        assert server.health().status == 200
        assert server.health().json["total_connections"] == 2
        await second.close()

        def again():
            return upgrade(server, query="token=" + token(user)).status

    harness.eventually(lambda: server.health().json["total_connections"] < 2, "room again")
    async with await Client.attach(server, user):
        pass
