"""seeds.py [TARGET...]: writes the seeds of the corpora, tests/fuzz/corpus/TARGET/seed-N.

What a target must have seen to get anywhere: one good input of each kind, and some that are bad in
ways that matter. Everything else in the corpora was found by libFuzzer.
"""

import base64
import hmac
import json
import pathlib
import struct
import sys
import zlib

HERE = pathlib.Path(__file__).parent
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
UPGRADE = (
    "Host: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n" + KEY
)


def frame(first, payload, mask=b"\x01\x02\x03\x04", form=None):
    """One masked frame."""
    if isinstance(payload, str):
        payload = payload.encode()
    size = len(payload)
    form = form or (7 if size < 126 else 16 if size < 65536 else 64)
    if form == 7:
        head = bytes([first, 0x80 | size])
    elif form == 16:
        head = bytes([first, 0xFE]) + struct.pack(">H", size)
    else:
        head = bytes([first, 0xFF]) + struct.pack(">Q", size)
    return head + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload))


def close(code, reason=b""):
    return frame(0x88, struct.pack(">H", code) + reason)


def http():
    yield "GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    yield "GET /ws?token=a.b.c&last_id=%20x HTTP/1.1\r\n" + UPGRADE + "\r\n\x81\x80abcd"
    yield "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello" * 2
    yield (
        "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        "5;x=y\r\nhello\r\n0\r\nTrailer: t\r\n\r\n"
    )
    yield "HEAD /ws/health HTTP/1.0\r\nConnection: keep-alive, x\r\n\r\nGET / HTTP/1.0\r\n\r\n"
    yield "GET / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nA: 1\r\na: 2 \r\nB:\r\n\r\n"
    yield "GET / HTTP/1.1\nHost: h\n\n"
    yield "GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n"
    yield "GET / HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n"
    yield "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"
    yield "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
    yield "GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
    yield "GET http://h/abs HTTP/1.1\r\nHost: h\r\n\r\n"
    yield "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n"
    yield "CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n"
    yield "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    yield "BREW / HTTP/1.1\r\nHost: h\r\n\r\n"
    yield "GET /" + "a" * 1100 + " HTTP/1.1\r\nHost: h\r\n\r\n"
    yield "GET / HTTP/1.1\r\nHost: h\r\n" + "A: b\r\n" * 101 + "\r\n"
    yield "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 301\r\n\r\n"
    yield "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n12d\r\n"


def deflated(payload, window=15, level=6):
    """A message as RFC 7692 wants it: without the last four bytes of its flush."""
    payload = payload.encode() if isinstance(payload, str) else payload
    z = zlib.compressobj(level, zlib.DEFLATED, -window)
    return (z.compress(payload) + z.flush(zlib.Z_SYNC_FLUSH))[:-4]


def deflate():
    for text in ("", "a", "hello " * 40, "\u00e4\u20ac" * 9):
        yield b"\0" + deflated(text)
        yield b"\x0f" + text.encode()
    yield b"\x08" + b'{"id":"1","type":"NOTIFICATION"}' * 4
    yield b"\0" + deflated("x" * 2000)
    yield b"\0" + deflated("x" * 2001)
    yield b"\0" + deflated(b"\0" * 200000)
    yield b"\0" + deflated("stored", level=0) + deflated("two blocks")
    yield b"\0" + zlib.compress(b"with a head")
    yield b"\0" + b"\x07" + b"\0\0\0\xff\xff"
    yield b"\0" + bytes([0x05, 0xC0, 0x81, 0x08, 0, 0, 0])


def wsock():
    yield frame(0xC1, deflated("hello " * 20)) + frame(0x81, "plain") + frame(0xC2, deflated("b"))
    body = deflated("in pieces, " * 9)
    yield frame(0x41, body[:5]) + frame(0x89, "p") + frame(0x00, body[5:9]) + frame(0x80, body[9:])
    yield frame(0xC1, deflated(b"\xff\xfe")) + frame(0xC1, "")
    yield frame(0xC1, deflated("x" * 201))
    yield frame(0xC1, deflated("x" * 50000))
    yield frame(0xC1, "not deflated") + frame(0xC0, "x")
    yield frame(0x81, "hello") + frame(0x82, b"\x00\xff")
    yield frame(0x01, "hel") + frame(0x89, "ping") + frame(0x80, "lo")
    yield frame(0x01, "a") + frame(0x00, "") + frame(0x8A, "x") + frame(0x80, "b")
    yield frame(0x81, "") + close(1000, "bye".encode()) + frame(0x81, "late")
    yield frame(0x88, "")
    yield frame(0x88, "x")
    for code in (999, 1004, 1005, 1012, 1015, 3000, 4999, 5000):
        yield close(code)
    yield close(1000, b"\xff")
    yield frame(0x81, "\u00e4\u20ac\U0001f600")
    yield frame(0x81, b"\xed\xa0\x80")
    yield frame(0x01, b"\xe2\x82") + frame(0x80, b"\xac")
    yield frame(0x81, "x" * 125) + frame(0x81, "x" * 126) + frame(0x81, "x", form=16)
    yield frame(0x81, "x", form=64)
    yield frame(0x82, b"x" * 200)
    yield frame(0x82, b"x" * 201)
    yield frame(0x02, b"x" * 100) + frame(0x80, b"x" * 101)
    yield b"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00abcd"
    yield b"\x81\x05hello"
    yield frame(0xC1, "hi") + frame(0x83, "hi")
    yield frame(0x09, "fragmented ping")
    yield frame(0x89, "x" * 126)
    yield frame(0x80, "nothing to continue")


def proxyhead():
    signature = b"\r\n\r\n\0\r\nQUIT\n"
    yield "PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\nGET / HTTP/1.1\r\n"
    yield "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n"
    yield "PROXY UNKNOWN what ever\r\n"
    yield "PROXY TCP4 192.0.2.1 192.0.2.2 056324 443\r\n"
    yield "PROXY TCP4 300.0.2.1 192.0.2.2 1 2\n"
    tcp4 = bytes([192, 0, 2, 1, 192, 0, 2, 2]) + struct.pack(">HH", 1, 2)
    yield signature + b"\x21\x11" + struct.pack(">H", 12) + tcp4 + b"GET"
    yield signature + b"\x21\x11" + struct.pack(">H", 20) + tcp4 + b"\x04\0\x05hello"
    yield signature + b"\x21\x21" + struct.pack(">H", 36) + bytes(range(36))
    yield signature + b"\x21\x31" + struct.pack(">H", 216) + b"/" * 216
    yield signature + b"\x20\0\0\0"
    yield signature + b"\x21\x11" + struct.pack(">H", 65535)
    for text in ("192.0.2.1:80", "[2001:db8::1]:443", "2001:db8::/32", "10.0.0.0/8", "10.0.0.1/8"):
        yield text


def bulk(text):
    text = text.encode() if isinstance(text, str) else text
    return b"$%d\r\n%s\r\n" % (len(text), text)


def array(*items):
    return b"*%d\r\n" % len(items) + b"".join(items)


def push():
    yield array(bulk("message"), bulk("ws:user:u"), bulk('{"id":"1"}'))
    yield array(bulk("subscribe"), bulk("ws:user:u"), b":1\r\n") * 3
    yield array(bulk("message"), bulk("c"), bulk(""))
    yield array(bulk("message"), bulk("c"), b"$-1\r\n")
    yield array(bulk("pmessage"), bulk("p*"), bulk("c"), bulk("x"))
    yield array(bulk("unsubscribe"), b"$-1\r\n", b":0\r\n")
    yield b"-ERR no\r\n" + b"+OK\r\n" + b":-5\r\n"
    yield b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$99999999999999999999\r\n"
    yield b"*3\r\n$07\r\nmessage\r\n$1\r\nc\r\n:-9223372036854775808\r\n"
    yield b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n:9223372036854775808\r\n"
    yield b"*3\r\n$7\r\nmessage\n\n$1\r\nc\r\n$1\r\nx\r\n"
    yield array(bulk("smembers"), array(bulk("a"), array()), bulk(b"\x00\r\n"))


def message():
    yield json.dumps(
        {
            "id": "01a2076c-c656-76c8-baf6-d5c2c28aad3b",
            "type": "TRANSACTION_CREATED",
            "timestamp": "2026-01-31T12:00:00.123456Z",
            "user_id": "u",
            "payload": {"id": "tx-1", "account_id": "a", "n": [1, -2.5e3, True, None]},
            "channel": "ws:user:u",
        }
    )
    yield '{"id":"1","type":"BALANCE_UPDATED","payload":{"account_id":"\\u00e4\\ud83d\\ude00"}}'
    yield '{"\\u0069d":"a\\nb","id":7,"type":"x","type":"NOTIFICATION","connection_id":"c"}'
    yield '{"id":"","type":"budget_alert","timestamp":"2026-01-31 12:00:00+01:00","payload":{}}'
    yield '{"payload":{"a":"\\ud800"},"type":"DASHBOARD_UPDATED"}'
    yield "[" * 40 + "]" * 40
    yield '[1,"a",{},[],true,false,null,-0,0.5,1e-7]'
    yield " {}\r\n\t"
    yield '{"a":01}'
    yield '{"a":1}x'
    yield "\ufeff{}"
    yield b'{"a":"\xff"}'
    yield '{"a":"\x01"}'
    yield '"text"'
    yield json.dumps(
        {
            "v": 1,
            "ask": "explain",
            "instance": "01a2076c-bf3e-77fa-ba99-be11989baf45",
            "worker": 1,
            "request": "7f",
            "user": "u",
            "id": "m1",
        }
    )
    yield '{"v":1,"ask":"kick","instance":"i-1","worker":0,"request":"0","user":"u\\n"}'
    record = {
        "instance": "i-1",
        "worker": 3,
        "fate": "queued",
        "at_us": 1769860800000000,
        "serial": "1a2076c",
        "position": 4,
        "detail": 0,
        "end": "written",
        "end_us": 1769860800000001,
    }
    yield json.dumps(
        {
            "v": 1,
            "instance": "i-1",
            "request": "1",
            "links": 2,
            "closed": 0,
            "trace_size": 1024,
            "cut": False,
            "last": True,
            "records": [record, dict(record, end="", fate="closed")],
        }
    )


def piece(payload):
    payload = payload.encode() if isinstance(payload, str) else payload
    return struct.pack(">H", len(payload)) + payload


def token(claims, header=None, secret=b"0123456789abcdef0123456789abcdef"):
    """A signed token, as belfryctl would make it."""

    def part(value):
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        return base64.urlsafe_b64encode(raw).rstrip(b"=")

    head = part(header or {"alg": "HS256", "typ": "JWT"}) + b"." + part(claims)
    return (head + b"." + part(hmac.digest(secret, head, "sha256"))).decode()


# The steps of fuzz_conn.c, in the order of its enum.
CONN_STEPS = (
    "connect send say frame read pass publish broadcast store snapshot answer redis gone drain"
).split()


def step(name, who=0, *pieces, more=b""):
    first = CONN_STEPS.index(name) + len(CONN_STEPS) * who
    return bytes([first % 256]) + more + b"".join(piece(p) for p in pieces)


def conn():
    user = token({"sub": "u"})
    admin = token({"sub": "a", "role": "admin"})
    open_ws = step("send", 0, f"GET /ws?token={user} HTTP/1.1\r\n" + UPGRADE + "\r\n")
    event = '{"id":"%s","type":"BALANCE_UPDATED","payload":{"account_id":"a"}}'
    yield b"\0" + step("send", 0, "GET /ws/health HTTP/1.1\r\nHost: h\r\n\r\n")
    yield b"\1" + step("send", 0, "GET /echo HTTP/1.1\r\n" + UPGRADE + "\r\n") + step(
        "send", 0, frame(0x01, "a") + frame(0x89, "p") + frame(0x80, "b") + close(1000)
    )
    yield b"\0" + step("store", 0, event % 1) + open_ws + step("publish", 0, event % 2) + step(
        "say", 0, '{"type":"dashboard_refresh"}'
    ) + step("store", 0, event % 3) + step("read")
    commands = (
        "ping",
        '{"type":"ping","payload":{"client_time":1}}',
        '{"type":"subscribe","payload":{"types":["NOTIFICATION"]}}',
        '{"type":"unsubscribe","payload":{"types":["NOTIFICATION"]}}',
        '{"type":"mark_notification_read","payload":{"notification_ids":["1","2"]}}',
        '{"type":"ack","payload":{"last_id":"1"}}',
        '{"type":"get_connection_stats"}',
        '{"type":"auth","payload":{"token":"%s"}}' % user,
        '{"type":"nonsense"}',
        "[]",
    )
    yield b"\0" + open_ws + b"".join(step("say", 0, c) for c in commands)
    yield b"\4" + step("send", 0, "GET /ws HTTP/1.1\r\n" + UPGRADE + "\r\n") + step(
        "say", 0, '{"type":"auth","payload":{"token":"%s","last_id":"1","types":["A"]}}' % user
    ) + step("publish", 0, event % 9) + step("pass", more=b"\x80") + step("pass", more=b"\xff")
    yield b"\x20" + open_ws + step("say", 0, "ping") * 8
    yield b"\0" + open_ws + step("redis", 10) + step("store", 0, event % 1) + step(
        "redis", 15
    ) + step("read")
    yield b"\0" + step("redis", 0) + open_ws + step(
        "answer", 0, "+OK\r\n"
    ) + step("answer", 0, "+QUEUED\r\n") * 4 + step(
        "answer", 0, "*4\r\n*1\r\n$2\r\n{}\r\n$-1\r\n*0\r\n$1\r\n7\r\n"
    )
    slow = b"\0" + open_ws
    for n in range(12):
        slow += step("store", 0, '{"id":"%d","type":"N","payload":{"x":"%s"}}' % (n, "y" * 900))
    yield slow + step("read") + step("read")
    yield b"\x10" + slow[1:] + step("broadcast", 0, event % "b")
    emit = json.dumps({"type": "NOTIFICATION", "payload": {"message": "m"}})
    yield b"\0" + step(
        "send",
        0,
        "POST /ws/test-message/u?message_type=NOTIFICATION HTTP/1.1\r\nHost: h\r\n"
        f"Authorization: Bearer {admin}\r\n"
        f"Content-Length: {len(emit)}\r\n\r\n{emit}",
    ) + step("send", 0, "GET /ws/stats HTTP/1.1\r\nHost: h\r\n\r\n")
    yield b"\0" + step("redis", 0) + step(
        "send",
        0,
        f"POST /ws/broadcast?message_type=MAINTENANCE&token={admin} HTTP/1.1\r\nHost: h\r\n"
        "Transfer-Encoding: chunked\r\n\r\n7\r\n{\"a\":1}\r\n0\r\n\r\n",
    ) + step("answer", 0, "-NOSCRIPT x\r\n") + step("answer", 0, ":3\r\n")
    host = " HTTP/1.1\r\nHost: h\r\n\r\n"
    yield b"\0" + step("send", 0, f"GET /ws/stats?token={admin}" + host) + step(
        "send", 0, "GET /ws/health?live" + host + "HEAD /" + host
    )
    yield b"\0" + step("connect", 17) + step(
        "send", 1, "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n"
    )
    extension = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
    yield b"\1" + step("send", 0, "GET /echo HTTP/1.1\r\n" + extension + UPGRADE + "\r\n") + step(
        "send", 0, frame(0xC1, deflated("hello " * 30)) + frame(0x81, "plain " * 30)
    )
    extension = extension.replace("client", "server").replace("bits", "bits=9")
    yield b"\0" + step(
        "send", 0, f"GET /ws?token={user} HTTP/1.1\r\n" + extension + UPGRADE + "\r\n"
    ) + step("store", 0, '{"id":"1","type":"N","payload":{"x":"%s"}}' % ("ab" * 100)) * 3 + step(
        "broadcast", 0, '{"id":"2","type":"N","payload":{"x":"%s"}}' % ("cd" * 100)
    )
    revocable = token({"sub": "u", "jti": "j"})
    open_revocable = step("send", 0, f"GET /ws?token={revocable} HTTP/1.1\r\n" + UPGRADE + "\r\n")
    yield b"\0" + open_revocable + step("publish", 0, event % 1)
    for answer in (":0\r\n", ":1\r\n", "-LOADING x\r\n", "$1\r\n1\r\n"):
        yield b"\0" + step("redis", 0) + open_revocable + step("answer", 0, answer) + step("read")
    yield b"\xc0" + open_ws + step("say", 0, "ping")
    for answer in ("$1\r\nv\r\n", "$-1\r\n", "$0\r\n\r\n", ":1\r\n", "$2\r\n\xff\n\r\n", "*0\r\n"):
        yield b"\xc0" + step("redis", 0) + open_revocable + step("say", 0, "ping") + step(
            "answer", 0, ":0\r\n"
        ) + step("answer", 0, answer) + step("redis", 5) + step("read")
    yield b"\xc0" + step("redis", 10) + open_revocable + step("say", 0, "ping") + step("redis", 15)
    good, bad = "Origin: https://ok.example\r\n", "Origin: https://bad.example\r\n"
    for origin in (good, bad, "", "Origin: null\r\n"):
        request = f"GET /ws?token={user} HTTP/1.1\r\n" + origin + UPGRADE + "\r\n"
        yield b"\x08" + step("send", 0, request)
    for offer in (f"belfry.v1, bearer.{user}", f"x, bearer.{user}", "belfry.v1", "bearer."):
        yield b"\0" + step(
            "send", 0, f"GET /ws HTTP/1.1\r\nSec-WebSocket-Protocol: {offer}\r\n" + UPGRADE + "\r\n"
        ) + step("read")
    yield b"\0" + step(
        "send", 0, f"GET /ws HTTP/1.1\r\nAuthorization: Bearer {user}\r\n" + UPGRADE + "\r\n"
    )
    hops = "X-Forwarded-For: 192.0.2.7, 10.0.0.1\r\n"
    yield b"\x80" + b"".join(
        step("connect", n)
        + step("send", n, f"GET /ws?token={user} HTTP/1.1\r\n" + hops + UPGRADE + "\r\n")
        for n in range(4)
    )
    yield b"\x80" + step("send", 0, "GET / HTTP/1.1\r\nHost: h\r\n" + hops + "\r\n") * 3 + step(
        "send", 0, "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: x, [::1]:9\r\n\r\n"
    )
    line = "PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\n"
    binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(range(12))
    get = "GET /ws/health HTTP/1.1\r\nHost: h\r\n\r\n"
    yield b"\x28" + step("send", 0, line + get)
    yield b"\x28" + step("send", 0, line[:20]) + step("send", 0, line[20:] + get)
    yield b"\x28" + step("send", 0, binary[:9]) + step("send", 0, binary[9:] + get.encode())
    yield b"\x28" + step("send", 0, get) + step("connect", 1) + step("gone", 1)
    yield b"\xa8" + b"".join(
        step("connect", n) + step("send", n, line + get) for n in range(4)
    )
    yield b"\0" + open_ws + step("drain", 0) + step("send", 0, frame(0x81, "ping")) + step(
        "connect", 1
    ) + step("send", 1, get) + step("pass", more=b"\xff")
    other = token({"sub": "v"})
    again = '{"type":"auth","payload":{"token":"%s"}}'
    renewed = token({"sub": "u", "exp": 1769870000})
    yield b"\0" + open_ws + step("say", 0, again % renewed) + step("say", 0, again % other)
    yield b"\0" + open_ws + step("say", 0, again % renewed) + step("pass", more=b"\xff") * 60
    yield b"\xc0" + step("send", 0, "GET /ws HTTP/1.1\r\n" + UPGRADE + "\r\n") + step(
        "say", 0, again % revocable
    ) + step("say", 0, "ping") + step("say", 0, again % renewed) + step("read")
    yield b"\x80" + b"".join(
        step("connect", n) + open_ws.replace(open_ws[:1], step("send", n)[:1], 1) for n in range(4)
    )
    named = token({"sub": "a", "role": "admin", "jti": "j"})
    stats = f"GET /ws/stats?token={named} HTTP/1.1\r\nHost: h\r\n\r\n"
    yield b"\0" + step("send", 0, stats) + step("read")
    yield b"\xc0" + step("send", 0, stats) + step("read")
    for answers in ((":1\r\n",), (":0\r\n", "$-1\r\n"), ("-ERR x\r\n", "-ERR x\r\n"), ()):
        yield b"\xc0" + step("redis", 0) + step("send", 0, stats) + b"".join(
            step("answer", 0, a) for a in answers
        ) + step("gone", 0)
    yield b"\xc0" + step("redis", 10) + step("send", 0, stats)
    post = (
        "POST /ws/broadcast?message_type=SYSTEM_ALERT HTTP/1.1\r\nHost: h\r\n"
        f"Expect: 100-continue\r\nAuthorization: Bearer {admin}\r\nContent-Length: 7\r\n\r\n"
    )
    yield b"\0" + step("send", 0, post) + step("send", 0, '{"a":1}') + step("send", 0, get)
    yield b"\0" + step("redis", 0) + step("send", 0, post + '{"a":1}' + get * 3) + step("gone", 0)
    balance = '{"id":"%d","type":"BALANCE_UPDATE","payload":{"account_id":"%d","x":"%s"}}'
    for flags in (b"\0", b"\x10"):
        yield flags + open_ws + b"".join(
            step("publish", 0, balance % (n, n % 3, "z" * 900)) for n in range(25)
        ) + step("read") + step("pass", more=b"\xff")
        yield flags + open_ws + b"".join(
            step("broadcast", 0, balance % (n, n % 9, "z" * 900)) for n in range(25)
        ) + step("read") + step("say", 0, "ping") + step("read")
    yield b"\0" + open_ws + b"".join(step("frame", 0, "p" * 100, more=b"\x89") for _ in range(20))
    yield b"\x08" + step("send", 0, "GET /ws?token=x.y.z HTTP/1.1\r\n" + UPGRADE + "\r\n")
    yield b"\2" + step("drain", 1) + step("send", 0, "GET /ws/realtime HTTP/1.1\r\n" + UPGRADE)
    yield b"\0" + open_ws + step("snapshot", 0, '{"type":"S","payload":{}}') + step(
        "connect", 1
    ) + step("send", 1, f"GET /ws?token={user}&last_id=1&seen=1,2 HTTP/1.1\r\n" + UPGRADE + "\r\n")


HANDOVER_STEPS = (
    "record device raw_device raw_link marker publish say pass redis connect move store"
).split()


def pack(payload):
    payload = payload.encode() if isinstance(payload, str) else payload
    return struct.pack("<I", len(payload)) + payload


def packed_frame(text, kind=1, flags=3, key=5):
    body = bytes([0x81, len(text)]) + text.encode()
    return struct.pack("<BBQQQq", kind, flags, hash64, 2, key, 1769860800000000) + pack(body)


hash64 = 0x1122334455667788


def handover():
    def do(name, who=0, *pieces, more=b""):
        first = HANDOVER_STEPS.index(name) + len(HANDOVER_STEPS) * who
        return bytes([first % 256]) + more + b"".join(piece(p) for p in pieces)

    def device(flags, state, *parts):
        parts = list(parts) + [b""] * (8 - len(parts))
        return do("device", 0, *parts, more=bytes([flags, 5, state, 0]))

    expect = do("record", 4, struct.pack("<I", 1) + pack("mark") + struct.pack("<I", 1) + pack("u"))
    recent = struct.pack("<BI", 0, 1) + struct.pack("<QB", 7, 0) + struct.pack("<I", 1)
    recent += struct.pack("<Qq", 9, 10000)
    user = do("record", 5, struct.pack("<II", 1, 0) + pack(struct.pack("<Q", 3) + pack(recent)))
    end = do("record", 7, b"\1")
    queue = struct.pack("<QI", 0, 0) + b"\0" + packed_frame("{}")
    lag = struct.pack("<BQQQqI", 1, 0, 1, 2, 3, 1) + struct.pack("<Q", 8) + struct.pack("<I", 1)
    lag += struct.pack("<QB", 6, 0)
    resume = struct.pack("<BQI", 1, 7, 2) + struct.pack("<QQ", 1, 2)
    held = struct.pack("<QB", 4, 1) + packed_frame("{}") + struct.pack("<QB", 5, 0)
    yield b"\1" + device(8 | 32, 0) + do("say", 0, "hi")
    yield b"\0" + device(8 | 2, 0, b"", b"", b"\1" + pack("A"), resume) + do(
        "say", 0, '{"type":"ping"}'
    )
    yield b"\0" + expect + user + device(8 | 64, 3) + end + do("marker", 0, "mark") + do(
        "publish", 0, '{"id":"1"}'
    )
    yield b"\0" + expect + do("marker", 0, "mark") + do("publish", 0, '{"id":"2"}') + user + device(
        8 | 64, 3, frame(0x01, "par"), queue, b"\0" + pack("B"), b"", struct.pack("<Q", 1)
    ) + device(64, 1, b"", b"", b"", resume, b"", held) + end
    yield b"\0" + expect + user + device(
        64, 3, b"", queue, b"", b"", b"", b"", lag + packed_frame("{}"), pack("FULL_SYNC") +
        packed_frame("{}", kind=0)
    ) + end + do("redis", 0) + do("redis", 1)
    yield b"\1" + do("connect", 1, frame(0x01, "hel") + b"\x80") + do("move") + do(
        "pass", more=b"\xff"
    )
    yield b"\1" + do("connect", 0, "") + do("move") + do(
        "say", 0, '{"type":"auth","payload":{"token":"%s"}}' % token({"sub": "u"})
    )
    yield b"\0" + do("record", 3, recent) + do("record", 10, b"\0\0\0\0") + do(
        "raw_device", 0, struct.pack("<III", 0x4C464542, 9, 1)
    )
    yield b"\0" + do("raw_link", 0, struct.pack("<IBI", 3, 0, 4) + b"abcd")
    wild = struct.pack(">QQqqqqqq", 1, 2, -(2**63), 2**63 - 1, 2**63 - 1, -5, 2**62, 2**63 - 1)
    yield b"\1" + do("device", 0, more=bytes([1 | 8 | 32]) + wild + b"\xff\xff\xff\xff") + do(
        "pass", more=b"\xff"
    )


def commands():
    each = (
        "ping",
        '{"type":"ping","payload":{"client_time":"x","sent_at":1.5}}',
        '{"type":"subscribe","payload":{"types":["NOTIFICATION"]}}',
        '{"type":"subscribe","payload":{"types":["A","b\\u0041"]}}',
        '{"type":"unsubscribe","payload":{"types":["NOTIFICATION"]}}',
        '{"type":"dashboard_refresh"}',
        '{"type":"mark_notification_read","payload":{"notification_ids":["1","2\\n"]}}',
        '{"type":"mark_notification_read","payload":{"notification_id":"1"}}',
        '{"type":"get_connection_stats"}',
        '{"type":"ack","payload":{"last_id":"1"}}',
        '{"type":"auth","token":"good","last_id":"7","seen":"1,2","types":"A,B"}',
        '{"type":"auth","payload":{"token":"good","seen":["1"],"types":["A"]}}',
        '{"type":"AUTH","payload":{"token":"bad"}}',
        '{"type":"no such thing"}',
        '{"type":1}',
        '{"payload":{}}',
        "[]",
        "",
    )
    yield "\1" + "\0".join(each[:8])
    yield "\0" + "\0".join(each[5:])
    yield "\5" + each[10] + "\0" + each[0]
    yield "\7" + each[0] + "\0" + each[11]
    yield "\5" + each[12]
    for one in each:
        yield "\3" + one
    acks = ['{"type":"ack","payload":{"last_id":"%d"}}' % n for n in range(5)]
    yield "\x09" + "\0".join(acks)
    yield "\x19" + "\0".join(acks + [each[6]])
    yield "\x09" + "\0".join(
        '{"type":"mark_notification_read","payload":{"notification_id":"%d"}}' % n
        for n in range(24)
    )
    yield "\1" + "\0".join(each[10] for _ in range(20))
    many = ",".join('"T%d"' % n for n in range(70))
    yield "\1" + '{"type":"subscribe","payload":{"types":[%s]}}' % many
    yield "\0" + "\0".join(
        '{"type":"subscribe","payload":{"types":["T%d"]}}\0{"type":"get_connection_stats"}' % n
        for n in range(12)
    )


def options():
    sample = (HERE / "../../etc/belfry.conf").read_text()
    rows = [line for line in sample.splitlines() if line.startswith("#") and "=" in line]
    yield "\n".join(row.lstrip("#") for row in rows)
    yield "listen = 127.0.0.1:8000, [::1]:0, *:1, unix:/tmp/x\nmetrics-listen = localhost:9\n"
    yield "redis-url = redis://u%20:p%40@[::1]:6379/3\n"
    yield "redis-url = unix:///run/r.sock?db=1\n# comment\n\n"
    yield "ping-interval = 1h30m\npong_timeout=500ms\nmax-message-size = 1M\nworkers = auto\n"
    yield "profile = finance-tracker\nevent-case = lower\norigins = https://a.example, http://b:1\n"
    yield "jwt-algorithms = HS256,RS512,ES384\nadmin-values = a, b\njwt-issuer = \"quoted text\"\n"
    yield "user-channel = {user_id}\nuser-channel = x:{user_id}\nnotifications-key = none\n"
    yield "pimg-interval = 3\nno equals\n= 3\nlisten =\nmax-connections = -1\n"
    yield "history-size=99999999999\n"
    yield b"listen = \xff\x01\r\n"
    words = ("--workers=3", "--no-echo", "--echo", "--listen", "*:1", "--pong-timeout", "--x")
    yield "history-size = 7\0" + "\0".join(words)
    yield "\0BELFRY_HISTORY_SIZE=9\0BELFRY_NONSENSE=1\0BELFRY_ORIGINS=http://a\0--test-config\0word"
    yield "a" * 8200 + " = 1\n"
    yield "\n".join("nonsense%d = 1" % n for n in range(60))
    url = "redis://user:secret@host:1"
    yield "echo = on\0--redis-url=" + url + "\0--redis-url\0" + url + "\0--\0--redis-url=" + url
    yield "\0--redis-url\0" + url
    yield "\0--dev\0--echo=yes\0--no-workers\0--test-config=1\0--help=2"
    yield "\0--config\0--dev"
    yield "workers = 2 \\\n 3\n\tlisten = *:1\nlog-level = \"debug\" # why\n"
    yield "\0--help\0-h\0-x\0--version=1\0--\0rest\0--workers"


def redis():
    def say(link, data):
        return bytes([0 if link == "pushes" else 2]) + piece(data)

    def call(kind):
        return bytes([4 + 8 * kind])

    def confirm(channel, number):
        return array(bulk("subscribe"), bulk(channel), b":%d\r\n" % number)

    fixed = ("ws:broadcast", "belfry:probe:fuzz:0", "belfry:request", "belfry:answer:fuzz:0")
    fixed += ("belfry:handover:fuzz",)
    confirmed = b"".join(confirm(name, n + 1) for n, name in enumerate(fixed))
    user = b"\x05" + say("pushes", confirmed + confirm("ws:user:u0", 6))
    messages = b"".join(
        array(bulk("message"), bulk(name), bulk("m1")) for name in fixed + ("ws:user:u0", "other")
    )
    queued = b"+OK\r\n" + b"+QUEUED\r\n" * 4
    listed = array(array(bulk("{}"), bulk("x")), b"$-1\r\n", array(bulk("1")), bulk("7"))
    yield b"\0" + user + say("pushes", messages)
    yield b"\0" + user + say("pushes", messages[:-3]) + say("pushes", messages[-3:])
    yield b"\0" + call(0) + say("commands", queued + listed)
    yield b"\0" + call(0) + call(5) + say("commands", queued + b"-EXECABORT x\r\n" + bulk("role:x"))
    yield b"\0" + call(1) + say("commands", b"-NOSCRIPT x\r\n") + say("commands", b":2\r\n")
    yield b"\0" + call(2) + call(3) + say(
        "commands",
        array(bulk("c"), b":3\r\n") + queued[:-9] + array(b":1\r\n", b":1\r\n", b":0\r\n"),
    )
    yield b"\0" + call(4) + call(6) + say("commands", b"+OK\r\n-READONLY x\r\n")
    yield b"\0" + call(7) + say("commands", b"+OK\r\n+QUEUED\r\n*1\r\n-WRONGTYPE x\r\n")
    yield b"\0" + call(0) + b"\x27" + say("commands", queued + b"*-1\r\n")
    yield b"\0" + say("commands", b"+nobody asked\r\n")
    yield b"\0" + call(0) + b"\x07" + b"\x0f"
    yield b"\0" + user + say("pushes", b"-ERR no\r\n")
    yield b"\0" + user + say("pushes", array(bulk("message"), array(), bulk("x")))
    yield b"\0" + user + b"\x06" + say(
        "pushes", array(bulk("unsubscribe"), bulk("ws:user:u0"), b":5\r\n")
    )
    yield b"\3" + say("commands", b"-LOADING x\r\n") + say("pushes", b"-NOAUTH x\r\n")
    yield b"\3" + say("commands", b"+OK\r\n$4\r\nPONG\r\n") + say("pushes", b"*0\r\n:1\r\n")
    yield b"\0" + call(5) + say("commands", b"%1\r\n+a\r\n,1.5\r\n#t\r\n_\r\n~1\r\n:1\r\n")


def text():
    yield "127.0.0.1:8000"
    yield "[2001:db8::1]:65535"
    yield "*:0"
    yield "unix:/run/x.sock"
    yield "redis://user:pa%20ss@host.example:6380/15"
    yield "rediss://:secret@[::1]"
    yield "unix://user:pw@/run/redis.sock?db=3"
    yield "ws://host:1/path?query"
    yield "wss://[::1]/"
    yield "ws+unix:///run/b.sock:/ws"
    yield "2026-01-31T23:59:60.123456789+01:30"
    yield "0000-02-29 00:00:00Z"
    yield "1h30m5s500ms"
    yield "16k"
    yield "99999999999999999999"
    yield "a=1&token=%41+b&c"
    yield "ws:us%65r:x"
    yield "ws:\u00e4\u20ac\U0001f600:x"
    yield "NOTIFICATION, b ,,C"
    yield ",".join("T%d" % n for n in range(90))
    yield "a{user_id}b"
    yield "{x}{user_id}"
    yield "n:{{user_id}}:x"
    yield "{user_id}{user_id}"
    yield "denied:{jti}"
    yield "{jti}{jti}"
    yield b'quote"\\\x00\x7f\xff\xed\xa0\x80'


# {"alg":"ES256","kid":"c"}, {"sub":"u1","exp":1769860900}: signed once by the key whose public half
# stands in fuzz_token.c. Such a signature (r, s) is as good as (r, -s).
ES256_SIGNED = (
    "eyJhbGciOiJFUzI1NiIsImtpZCI6ImMifQ.eyJzdWIiOiJ1MSIsImV4cCI6MTc2OTg2MDkwMH0"
)
ES256_SIGNATURES = (
    "wdBOGo11qYgN59KkBAGTyA7NScQtaj0hcfn0cGq6H2YyXknWJhd6qhWwwfI_hb96r_bCgPQdAsTmm5gkwrQrdg",
    "wdBOGo11qYgN59KkBAGTyA7NScQtaj0hcfn0cGq6H2bNobYo2eiFVupPPg3AekCFDPA4LLL6m8ANHjKeOa8How",
)


def tokens():
    good = {"sub": "u1", "exp": 1769860900}
    head = json.dumps({"alg": "HS256", "typ": "JWT"})

    def signed(flags, claims, header=head):
        claims = claims if isinstance(claims, str) else json.dumps(claims)
        return bytes([flags | 4]) + header.encode() + b"\0" + claims.encode()

    yield b"\0" + token(good).encode()
    yield b"\0" + token(good, {"alg": "none"}).encode()
    yield b"\0" + token(good, {"alg": "HS512"}).encode()
    yield b"\0a.b.c"
    yield signed(0, good)
    yield signed(1, {"sub": "u1"})
    yield signed(9, good, json.dumps({"alg": "HS512", "kid": "k"}))
    yield signed(0, {"sub": 7, "nbf": 1.5e9, "role": ["x", "admin"]})
    yield signed(0, '{"sub":"a","sub":"b"}')
    yield signed(0, {"sub": "", "exp": -1})
    yield signed(0, {"sub": "x" * 300})
    yield signed(0, '{"\\u0073ub":"\\ud83d\\ude00\\u0000"}')
    yield signed(0, '{"sub":"u","exp":1e400,"nbf":-0.5E-3}')
    app = {"user": "u", "roles": "root"}
    yield signed(3, {"app": app, "iss": "me", "aud": ["x", "you"], "exp": 9e9})
    yield signed(3, {"app.user": "u", "iss": "me", "aud": "you", "exp": 9e9})
    yield signed(0, good, '{"alg":"HS256","crit":["exp"]}')
    yield signed(0, good, '{"alg":"HS256","\\u0061lg":"none"}')
    yield signed(0, good, '{"alg":"RS256"}')
    curve = json.dumps({"alg": "EdDSA"})
    for flags in (16, 17):
        yield signed(flags, good, curve)
    yield signed(16, {"sub": "u1"}, '{"alg":"EdDSA","kid":"none of this name"}')
    yield signed(16, good, '{"alg":"EdDSA","kid":"c"}')
    yield signed(16, {"sub": "u1", "exp": 1}, curve)
    yield signed(19, {"app": app, "iss": "me", "aud": "you", "exp": 9e9}, curve)
    yield signed(16, good)
    yield signed(0, good, curve)
    for signature in ES256_SIGNATURES:
        yield f"\0{ES256_SIGNED}.{signature}"
        yield f"\0{ES256_SIGNED}.{signature[:-1]}w"
        yield f"\2{ES256_SIGNED}.{signature}"


def upgrade():
    def send(kind, along, body, more=b""):
        return bytes([kind, along]) + more + piece(body)

    def memory(pages, head, odd=0):
        return bytes([pages]) + piece(head) + bytes([odd])

    start = struct.pack("<IIQqqqII", 1, 3, 5, 100, 200, 300, 1, 1024) + b"\xff" * 32
    start += b"01a2076c-bf3e-77fa-ba99-be11989baf45".ljust(40, b"\0") + b"0.1.0".ljust(24, b"\0")
    listener = b"127.0.0.1:8000".ljust(128, b"\0") + b"127.0.0.1:8000".ljust(128, b"\0")
    listener += struct.pack("<QQIBBBB", 0, 0, 0, 0, 0, 0, 0)
    unix = listener.replace(b"127.0.0.1:8000", b"unix:/tmp/x.so")
    counters = struct.pack("<IIII", 2, 1, 1, 1)
    control = struct.pack("<QQ", 1, 2) + b"/run/c.sock".ljust(108, b"\0") + b"\0" * 4
    yield send(1, 0, start) + send(2, 1, listener) + send(2, 1, unix)
    yield send(1, 0, start) + send(3, 2, struct.pack("<I", 0), memory(3, counters)) + send(
        3, 2, struct.pack("<I", 1), memory(40, b"")
    ) + send(3, 2, struct.pack("<I", 2), memory(9, struct.pack("<IIII", 2, 16, 15, 0)))
    yield send(1, 0, start) + send(3, 3, struct.pack("<I", 0), memory(3, counters))
    untraced = start[:44] + struct.pack("<I", 0) + b"\0" * 32 + start[80:]
    table = memory(10, struct.pack("<IIII", 1, 848, 1023, 0))
    whole = send(3, 2, struct.pack("<I", 0), memory(3, counters)) + send(
        3, 2, struct.pack("<I", 2), table
    ) + send(3, 2, struct.pack("<I", 3), table)
    yield send(1, 0, untraced) + whole
    yield send(1, 0, untraced[:48] + b"\xff" * 32 + untraced[80:]) + whole
    yield send(1, 0, untraced) + whole + send(1, 0, start)
    yield send(1, 0, start) + send(4, 1, control) + send(5, 0, "reloaded") + send(
        6, 0, "connections_opened 5\nnonsense\nmessages_received 99999999999999999999999\nx \n"
    )
    yield send(1, 0, start[:100])
    yield send(2, 0, listener) + send(1, 0, start + b"more")
    yield b"received_bytes 7\nwebsockets_opened 3\nrestarts 2\nsent_bytes \n\nsent_bytes 4"


def wsclient():
    def server(first, payload):
        payload = payload if isinstance(payload, bytes) else payload.encode()
        size = len(payload)
        return bytes([first]) + (
            bytes([size]) if size < 126 else b"\x7e" + struct.pack(">H", size)
        ) + payload

    head = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
        b"Sec-WebSocket-Protocol: belfry\r\n\r\n"
    )
    yield head + server(0x81, "hello") + server(0x89, "p") + server(0x88, b"\x03\xf4restarting")
    yield head + server(0x01, "a") + server(0x00, "b") + server(0x8A, "") + server(0x80, "c" * 300)
    yield head + server(0x82, b"\xff") + server(0x81, b"\xff")
    yield head + server(0x88, "") + server(0x81, "late")
    yield head + server(0x88, b"\x03") + b"\x81\x85abcdhello"
    yield head + b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff"
    yield head + server(0xC1, "x")
    yield b"HTTP/1.1 503 Busy\r\nRetry-After: 5\r\nContent-Length: 16\r\n\r\n" + b'{"message":"no"}'
    refusal = b'{"message":"later\\u001b","n":1}'
    yield b"HTTP/1.1 429 x\r\nRetry-After: 9\r\nContent-Length: 30\r\n\r\n" + refusal
    yield b"HTTP/1.1 404 x\r\nContent-Length: 9999\r\n\r\n<html>"
    yield head.replace(b"s3p", b"s4p") + server(0x81, "x")
    yield head.replace(b"belfry", b"other") + server(0x81, "x")
    yield b"HTTP/1.0 200\r\n\r\n"
    yield b"HTTP/1.1 101 x\nUpgrade: WebSocket, x\nConnection: a , UPGRADE\n\n"
    yield b"SSH-2.0-x\r\n"
    yield (
        b"HTTP/1.1 99999999999 x\r\nContent-Length: -1\r\n"
        b"Content-Length: 99999999999999999999\r\n\r\n"
    )


RSA = (
    "yS1Ci43XAh8MSpnEa5E74Lk4A--75UT0X-mM-swtPJrWKLnqcFL-K5NTyP0RMzBwRp-JBRIUWPIp2ASqOobLkt-Rtfsb0"
    "9reOd9zfA7XRmL2dhuNUUOqvB86lhHMNXSYa3lyH_g3F9xkRAoAt64bHQ2tS1SBswObnmxvDa2WThc1tKslyRERZnCv7e"
    "QwR_d_q4FOLQ1YiSohX2T5m8raKI1lluGQz2kzrgHH-l9D3zl90HFEoW1RgJY0wX71Lh2qZ7UUKVq05GOc_5SbdWW9OV5"
    "fEY3Bxzmy6u3btXyqkNKH6ucHNIIiCcIEvMc5Z16DSOBmknT5Hp6rh2GL_g4ZWw"
)
POINTS = {
    "P-256": (
        "lwLi2eL09aHaJ1W02hq-kIZmIBTX7Tg1wGMQTNvZfjU",
        "Sx6VEPIuI-Af-l1ZFWlnbs1Kw1oQHF4ZoRgamGxYrQE",
    ),
    "P-384": (
        "dz6DVypCgXFzbJ273aqxob-sLoX-FtnZrrUeXZISf-stKpQnJX0CHwM1FviPKX1R",
        "_cauWhN2PhIoaMvGCbP3BGqUu9d_0sJjmyJBsvy7bKVP-mAXldojOpaStXean3SG",
    ),
    "P-521": (
        "AZ1VTO7ESp0-likE04zuErSFpGUK_CLZrZ7q1__KwxnuB9AllUPvK-d3TpcjL6kE0ihjRCnFi-T3eO_4ESrjo9F7",
        "AY4MsWGYaPTSPpt1RQgHv1nHB8cygzNfn8vxV1Q9WuHD3EO30DGP7oFIq-8c1R_4Je7qz4GhRMHxfSB4QX_JeIki",
    ),
}


def jwks():
    """A rule, a signature, a set."""
    def one(rule, *keys, signature=b"sig"):
        return bytes([rule]) + signature + b"\0" + json.dumps({"keys": list(keys)}).encode()

    oct_key = {"kty": "oct", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY", "kid": "o"}
    rsa = {"kty": "RSA", "n": RSA, "e": "AQAB", "kid": "r", "use": "sig"}
    ed = {"kty": "OKP", "crv": "Ed25519", "x": "D18-I17Yr3nep2FBSN5JZaYys-PVKNtxGdDG3QJtTgs"}
    ec = [{"kty": "EC", "crv": crv, "x": x, "y": y, "kid": crv} for crv, (x, y) in POINTS.items()]
    yield one(3, oct_key, rsa, ed, *ec)
    yield one(0, oct_key, rsa)
    yield one(1, {**rsa, "alg": "RS256"}, {**rsa, "kid": "s", "alg": "PS512"})
    yield one(2, *ec, ed, signature=b"\x01" * 64)
    yield one(3, {**oct_key, "alg": "HS512"}, {**oct_key, "kid": "\u00e4\n"})
    yield one(3, oct_key, oct_key)
    yield one(3, {**rsa, "d": "AQAB"})
    yield one(3, {**rsa, "n": RSA[:80]}, oct_key)
    yield one(3, {**rsa, "e": "Ag"})
    yield one(3, {**ec[0], "y": ec[0]["x"]})
    yield one(3, {**ec[0], "crv": "P-384"})
    yield one(3, {**ec[0], "crv": "secp256k1"}, {"kty": "OKP", "crv": "X25519", "x": "AA"}, ed)
    yield one(3, {**ed, "x": "AA"})
    yield one(3, {**oct_key, "k": "c2hvcnQ"})
    yield one(3, {**oct_key, "k": "not base64url!"})
    yield one(3, {**oct_key, "use": "enc"}, {**ed, "key_ops": ["sign"]}, rsa)
    yield one(3, {**oct_key, "key_ops": ["sign", "verify"]}, {**ed, "alg": "none"})
    yield one(3, {**oct_key, "kid": ""})
    yield one(3, *[{**oct_key, "kid": str(i)} for i in range(65)])
    yield b'\x03\0{"keys":[{"kty":"oct","kty":"RSA"}]}'
    yield b'\x03\0{"keys":[1,"x",null,[]]}'
    yield b'\x03\0{"keys":{}}'
    yield b'\x03\0{"keys":[],"keys":[]}'
    yield b"\x03\0[]"


def control():
    def step(kind, who=0, more=0, text=None):
        return bytes([kind + 8 * who + more]) + (piece(text) if text is not None else b"")

    def says(text, who=0):
        return step(0, who) + step(1, who, text=text) + step(6, who)

    def flags(value):
        return bytes([3, value])

    yield says("status\n")
    yield says("status\r\n", 1) + says("stop\n", 2) + says("drain\n", 3)
    yield flags(1) + says("status\n") + step(6) + step(6)
    yield says("reload\n") + step(5, more=8) + step(6)
    yield says("reload\n") + step(5) + step(6)
    yield flags(2) + says("reload\n")
    yield flags(12) + says("reload\n") + flags(4) + says("reload\n", 1)
    yield says("explain u%20x m%2f1\n") + step(4) + step(6)
    yield says("kick u\n") + says("revoke j\n", 1) + step(4, more=32) + step(4) + step(6) * 2
    yield says("show 0123-1\n") + step(7, more=32) + step(4) + step(6)
    yield says("connections u\n") + step(1, text="more\n") + step(4)
    yield says("explain\n") + says("explain u\n", 1) + says("kick u v\n", 2) + says("kick %zz\n", 3)
    yield flags(16) + says("kick u\n") + flags(24) + says("show i\n", 1)
    yield says("what\n") + says("", 1) + says("sta", 2) + step(1, 2, text="tus\n") + step(6, 2)
    yield step(0) + step(0, 1) + flags(32) + flags(32) + step(6)
    yield says("kick u\n") + flags(32) + step(4) + says("reload\n", 1) + flags(32) + step(5)
    yield step(0) + step(1, text="x" * 3000) + step(1, text="y" * 1500) + step(6)
    yield step(0) + step(7) + step(0, 1) + step(1, 1, text="kick u\n") + step(7, 1) + step(4, 1)


def reply():
    """A subcommand, and the answer it gets."""
    rates = {
        "received": 1.5, "delivered": 2e3, "commands": 0, "received_bytes": 1e6,
        "sent_bytes": 1234.5, "opened": 0.1, "cpu_percent": 99.9,
    }
    groups = {
        "connections": {"websockets": 3, "websockets_opened": 5, "auth_failures": 1},
        "messages": {"messages_received": 7, "deliveries": 9, "messages_invalid_json": 1},
        "redis": {"redis_subscriptions": 2, "redis_disconnects": 0},
    }
    status = {
        "ok": True, "version": "1.0", "instance_id": "abcdef012345678", "pid": 1,
        "state": "running", "generation": 1, "uptime_seconds": 90061, "config_file": None,
        "listen": ["127.0.0.1:1", "unix:/x"], "metrics_listen": "[::1]:2", "redis": "redis://h:1/0",
        "last_reload": {"at": "2026-01-31T12:00:00Z", "ok": False, "message": "a\nb\u009b"},
        "connected_users": 2, "worker_count": 2, "restarts": 0,
        "redis_links": {
            "workers": 2, "subscriber_up": 1, "command_up": 2, "latency_ms": 0.5,
            "last_delivery_probe_ms": 1.25, "last_delivery_probe_at": "2026-01-31T12:00:00.000001Z",
        },
        "rates": rates, "totals": groups,
        "workers": [
            {"slot": 0, "pid": 2, "generation": 1, "state": "ready", "restarts": 0,
             "rss_bytes": 12345678, "rates": rates, **groups},
            {"slot": 1, "pid": 3, "state": "backoff", "rss_bytes": None},
        ],
    }
    connection = {
        "id": "0123-1", "user": "u", "state": "open", "family": "ipv4", "address": "h", "worker": 0,
        "client": "h:1", "tls": True, "compression": True, "admin": True,
        "opened_at": "2026-01-31T12:00:00Z", "last_read_at": "2999-01-31T12:00:00Z",
        "ping_sent_at": "2026-01-31T12:00:00Z", "received_bytes": 1, "sent_bytes": 2,
        "acknowledged_bytes": 2, "queued_bytes": 0, "blocked": True, "token_id": "j",
        "token_expires_at": None,
        "close": {"reason": "auth", "code": 4001, "frame_sent": True, "frame_received": True,
                  "at": "2026-01-31T12:00:00Z"},
        "device": {
            "state": "live", "subscription": "up",
            "lag": {"owed_messages": 3, "since": "2026-01-31T12:00:00Z"},
            "filter": {"only": ["A", "B\u0007"], "more": 2},
        },
    }
    workers = {"asked": 2, "answered": 2}
    shown = {"ok": True, "instance_id": "abcdef0123", "connections": [connection, {}],
             "cut": True, "workers": workers}
    closed = {
        "ok": True, "instance_id": "abc", "closed": 2, "workers": workers,
        "others": {"asked": True, "links": 3, "answered": 2},
        "instances": [{"instance": "abc", "closed": 1}, {"instance": "d\"ef", "closed": 1}],
    }
    def record(fate, seconds=0, end="waiting", serial="1f", detail=64, position=200):
        at = 1769860800000000 + seconds * 1000000
        return {"instance": "abcdef0123456789", "fate": fate, "end": end, "worker": 0, "at_us": at,
                "end_us": at + 5 if end != "waiting" else 0, "position": position,
                "detail": detail, "serial": serial}

    explained = {"ok": True, "instance_id": "i", "trace_size": 100, "cut": False,
                 "workers": workers, "others": {"asked": True, "links": 0, "answered": 0}}
    opened, closed_late = record("opened", -9, detail=1), record("closed", 9, detail=3)
    stories = [[record("received"), opened, record(f), closed_late] for f in (
        "held", "filtered", "lagging", "conflated", "dropped", "closing", "duplicate", "given")]
    stories += [[record("received"), opened, record(f, 1, end), record("open", 5, position=999)]
                for f in ("queued", "replayed", "repaired")
                for end in ("written", "conflated", "dropped", "given", "closed")]
    stories += [
        [record("broadcast"), opened, record("queued", 1, "written"), record("acked", 2),
         record("read", 3), closed_late],
        [record("started", 1), record("link-lost", -1), record("link-back", 1), opened],
        [record("received"), record("taken", -1, serial="2f"), record("queued", serial="2f"),
         record("given", 1, serial="2f"), record("nonsense"), {}],
        [],
    ]
    yield b"\5" + json.dumps({
        **explained, "records": [], "trace_size": 0, "cut": True, "workers": {"asked": 1},
        "others": {"asked": False, "error": "it\u001b[2J"},
    }).encode() + b"\n"
    yield b"\5" + json.dumps({**explained, "others": {"links": 3, "answered": 1}}).encode() + b"\n"
    refused = {"ok": False, "error": "line\ntwo\u001b[2J\u009b2J"}
    for byte in (0, 1, 8, 9):
        yield bytes([byte]) + json.dumps(status).encode() + b"\n"
    for byte in (2, 3, 10, 11):
        yield bytes([byte]) + json.dumps(shown).encode() + b"\n"
    yield b"\x02" + json.dumps({**shown, "connections": [], "workers": {"asked": 1}}).encode()
    for byte in (4, 12):
        yield bytes([byte]) + json.dumps(closed).encode() + b"\n"
        yield bytes([byte]) + json.dumps({"ok": True, "closed": 1, "others": {}}).encode() + b"\n"
    for number, story in enumerate(stories):
        answer = json.dumps({**explained, "records": story}).encode() + b"\n"
        yield bytes([5 + 8 * (number % 2)]) + answer
    for byte in range(16):
        yield bytes([byte]) + json.dumps(refused).encode() + b"\n"
    yield b"\x06" + b'{"ok":true}\n'
    yield b"\x07" + b'{"ok":true}\n'
    yield b"\0"
    yield b"\0not json\n"


TARGETS = {
    "commands": commands,
    "conn": conn,
    "control": control,
    "deflate": deflate,
    "handover": handover,
    "http": http,
    "jwks": jwks,
    "message": message,
    "options": options,
    "proxyhead": proxyhead,
    "push": push,
    "redis": redis,
    "reply": reply,
    "text": text,
    "token": tokens,
    "upgrade": upgrade,
    "wsclient": wsclient,
    "wsock": wsock,
}


def main(wanted):
    for name in wanted or TARGETS:
        folder = HERE / "corpus" / name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("seed-*"):
            old.unlink()
        for number, seed in enumerate(TARGETS[name]()):
            seed = seed.encode() if isinstance(seed, str) else seed
            (folder / f"seed-{number:02}").write_bytes(seed)


if __name__ == "__main__":
    main(sys.argv[1:])
