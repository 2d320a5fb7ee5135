"""RFC 6455 by its groups, against GET /echo: what a conformance suite would ask.

A client that may break every rule speaks over a plain socket; the last tests are spoken by
python3-websockets.
"""

import os
import select
import socket
import struct
import subprocess
import threading

import pytest

import harness
from harness import Client, RawClient, eventually, token, unique

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MB = 1 << 20
CONTROL = (CLOSE, PING, PONG)


@pytest.fixture(scope="module")
def echo(make_shared):
    """Limits that /echo must not feel, and pings that it must not get."""
    return make_shared(echo="on", workers="1", max_message_size="1k", send_buffer_limit="64k",
                       ping_interval="200ms", pong_timeout="200ms", max_header_size="16k")


class Echo(RawClient):
    def __init__(self, server, **more):
        super().__init__(server, path="/echo", **more)
        assert self.status == 101, self.head
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def chop(self, data, size):
        for at in range(0, len(data), size):
            self.sock.sendall(data[at:at + size])

    def fragments(self, opcode, *parts):
        for i, one in enumerate(parts):
            self.send(0 if i else opcode, one, fin=i + 1 == len(parts))

    def returns(self, opcode, payload):
        """It comes back next."""
        payload = payload.encode() if isinstance(payload, str) else payload
        got, body = self.receive()
        assert got == opcode, (got, body[:200])
        assert body == payload, "%d bytes instead of %d" % (len(body), len(payload))

    def fails(self, code):
        """The server closes with that code, and ends TCP."""
        got, _ = self.close_code()
        assert got == code
        assert self.is_ended()

    def ends(self):
        """The connection is as it should be: a message comes back, then a close is answered."""
        self.send(TEXT, "the last")
        self.returns(TEXT, "the last")
        self.send(CLOSE, struct.pack(">H", 1000))
        self.returns(CLOSE, struct.pack(">H", 1000))
        assert self.is_ended()


def pattern(length):
    return bytes(i * 7 % 251 for i in range(min(length, 65537))) * (length // 65537 + 1)


def letters(length):
    return (b"*-abcdefg " * (length // 10 + 1))[:length]


# ---- frame borders ------------------------------------------------------------------------------


def test_every_length_comes_back_in_either_kind(echo):
    with Echo(echo) as c:
        for length in (0, 1, 124, 125, 126, 127, 128, 65534, 65535, 65536, 65537):
            c.send(TEXT, letters(length))
            c.returns(TEXT, letters(length))
            c.send(BINARY, pattern(length)[:length])
            c.returns(BINARY, pattern(length)[:length])
        c.ends()


def test_messages_in_one_packet_come_back_in_order(echo):
    with Echo(echo) as c:
        c.sock.sendall(b"".join(c.frame(TEXT, "message %d" % i) for i in range(300)))
        for i in range(300):
            c.returns(TEXT, "message %d" % i)
        c.ends()


def test_bytes_may_come_one_by_one(echo):
    with Echo(echo) as c:
        for length in (0, 5, 125, 126, 200):
            c.chop(c.frame(TEXT, letters(length)), 1)
            c.returns(TEXT, letters(length))
        c.chop(c.frame(PING, "slow"), 1)
        c.returns(PONG, "slow")
        c.chop(c.frame(TEXT, letters(65536)), 997)
        c.returns(TEXT, letters(65536))
        c.ends()


def test_a_message_may_come_with_the_request(echo):
    with Echo(echo, after=RawClient.frame(TEXT, "early")) as c:
        c.returns(TEXT, "early")
        c.ends()


def test_a_frame_without_a_mask_is_refused(echo):
    for length in (0, 5, 200):
        with Echo(echo) as c:
            c.send(TEXT, letters(length), masked=False)
            c.fails(1002)


def test_a_length_must_take_its_shortest_form(echo):
    for head in (b"\x81\xfe\x00\x05", b"\x81\xff" + struct.pack(">Q", 5),
                 b"\x81\xff" + struct.pack(">Q", 1 << 63)):
        with Echo(echo) as c:
            c.sock.sendall(head + b"\0\0\0\0hello")
            c.fails(1002)


# ---- control frames -----------------------------------------------------------------------------


def test_pings_are_answered_with_what_they_hold(echo):
    with Echo(echo) as c:
        for payload in (b"", b"Hello", b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff", b"\xfe" * 125):
            c.send(PING, payload)
            c.returns(PONG, payload)
        c.sock.sendall(b"".join(c.frame(PING, "%d" % i) for i in range(10)))
        for i in range(10):
            c.returns(PONG, "%d" % i)
        c.ends()


def test_pongs_that_nobody_asked_for_are_ignored(echo):
    with Echo(echo) as c:
        c.send(PONG)
        c.send(PONG, "unasked")
        c.send(PING, "asked")
        c.returns(PONG, "asked")
        c.send(PONG, "x" * 125)
        c.ends()


def test_control_frames_hold_at_most_125_bytes_in_one_frame(echo):
    for opcode in CONTROL:
        payload = struct.pack(">H", 1000) + b"x" * 124 if opcode == CLOSE else b"x" * 126
        with Echo(echo) as c:
            c.send(opcode, payload)
            c.fails(1002)
        with Echo(echo) as c:
            c.send(opcode, b"", fin=False)
            c.fails(1002)


# ---- reserved bits and opcodes ------------------------------------------------------------------


def test_reserved_bits_are_refused(echo):
    for bits in range(1, 8):
        for opcode in (TEXT, BINARY, PING, PONG, CLOSE):
            with Echo(echo) as c:
                c.send(TEXT, "before")
                c.returns(TEXT, "before")
                c.send(opcode, b"" if opcode == CLOSE else b"*", rsv=bits)
                c.send(PING)
                c.fails(1002)


def test_reserved_bits_of_a_continuation_are_refused(echo):
    for bits in range(1, 8):
        with Echo(echo) as c:
            c.send(TEXT, "a", fin=False)
            c.send(0, "b", rsv=bits)
            c.fails(1002)


def test_reserved_opcodes_are_refused(echo):
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        for payload in (b"", b"*"):
            with Echo(echo) as c:
                c.send(TEXT, "before")
                c.returns(TEXT, "before")
                c.send(opcode, payload)
                c.send(PING)
                c.fails(1002)


# ---- fragmentation ------------------------------------------------------------------------------


def test_fragments_become_one_message(echo):
    with Echo(echo) as c:
        for parts in (["one", "two"], ["", "", ""], ["", "middle", ""], ["first", ""],
                      ["x"] * 50, [letters(126), letters(65536), letters(125)]):
            for opcode in (TEXT, BINARY):
                c.fragments(opcode, *parts)
                c.returns(opcode, b"".join(p if isinstance(p, bytes) else p.encode()
                                           for p in parts))
        c.ends()


def test_control_frames_come_between_fragments_and_are_answered_at_once(echo):
    with Echo(echo) as c:
        c.send(TEXT, "one ", fin=False)
        c.send(PING, "now")
        c.returns(PONG, "now")
        c.send(PONG, "unasked")
        c.send(0, "two ", fin=False)
        c.send(PING, "again")
        c.returns(PONG, "again")
        c.send(0, "three")
        c.returns(TEXT, "one two three")
        c.ends()


def test_fragments_and_control_frames_may_be_cut_anywhere(echo):
    whole = (RawClient.frame(TEXT, "one ", fin=False) + RawClient.frame(PING, "p") +
             RawClient.frame(0, "two"))
    with Echo(echo) as c:
        for cut in range(1, len(whole)):
            c.sock.sendall(whole[:cut])
            c.sock.sendall(whole[cut:])
            c.returns(PONG, "p")
            c.returns(TEXT, "one two")
        c.ends()


def test_a_continuation_of_nothing_is_refused(echo):
    for fin in (True, False):
        with Echo(echo) as c:
            c.fragments(TEXT, "a", "b")
            c.returns(TEXT, "ab")
            c.send(0, "of nothing", fin=fin)
            c.send(TEXT, "ignored")
            c.fails(1002)


def test_a_message_within_a_message_is_refused(echo):
    for opcode in (TEXT, BINARY):
        with Echo(echo) as c:
            c.send(TEXT, "begun", fin=False)
            c.send(opcode, "another")
            c.fails(1002)


# ---- UTF-8 --------------------------------------------------------------------------------------

VALID = ["κόσμε", "Hello-µ@ßöäüàá-UTF-8!!", "\0", "\x7f\u0080", "\u07ff\u0800", "\ud7ff\ue000",
         "\ufffd\uffff\ufffe", "\U00010000", "\U0010ffff", "é€😀" * 20]
# What is wrong, and the byte (counted from 1) at which that is certain.
INVALID = [(b"\x80", 1), (b"\xff", 1), (b"\xc0\xaf", 1), (b"\xc1\xbf", 1), (b"\xe0\x80\xaf", 2),
           (b"\xe0\x9f\xbf", 2), (b"\xed\xa0\x80", 2), (b"\xed\xbf\xbf", 2),
           (b"\xf0\x80\x80\x80", 2), (b"\xf0\x8f\xbf\xbf", 2), (b"\xf4\x90\x80\x80", 2),
           (b"\xf5\x80\x80\x80", 1), (b"\xf8\x88\x80\x80\x80", 1), (b"\xfe", 1),
           (b"\xe2\x28\xa1", 2), (b"\xe2\x82\x28", 3), (b"\xf0\x9f\x98\x28", 4), (b"\xc3\x28", 2)]
CUT_OFF = [b"\xc3", b"\xe2", b"\xe2\x82", b"\xf0", b"\xf0\x9f", b"\xf0\x9f\x98", b"\xf4\x8f\xbf"]


def test_characters_may_be_split_anywhere(echo):
    with Echo(echo) as c:
        for text in (one.encode("utf-8", "surrogatepass") for one in VALID):
            c.chop(c.frame(TEXT, text), 1)
            c.returns(TEXT, text)
            c.fragments(TEXT, *(text[i:i + 1] for i in range(len(text))))
            c.returns(TEXT, text)
            for at in range(len(text) + 1):
                c.fragments(TEXT, text[:at], text[at:])
                c.returns(TEXT, text)
        c.ends()


def test_binary_messages_need_not_be_utf8(echo):
    with Echo(echo) as c:
        for bad in [one for one, _ in INVALID] + CUT_OFF:
            c.send(BINARY, bad)
            c.returns(BINARY, bad)
        c.ends()


def test_what_is_no_utf8_is_refused_whole_and_in_fragments(echo):
    for bad in [one for one, _ in INVALID] + CUT_OFF:
        with Echo(echo) as c:
            c.send(TEXT, b"before " + bad)
            c.fails(1007)
        with Echo(echo) as c:
            c.fragments(TEXT, b"before ", *(bad[i:i + 1] for i in range(len(bad))), b"")
            c.fails(1007)


def test_a_bad_byte_ends_it_at_once_within_a_frame(echo):
    """The rest of the frame never comes."""
    for bad, certain in INVALID:
        with Echo(echo) as c:
            frame = c.frame(TEXT, "κόσμε".encode() + bad + b"x" * 100)
            upto = 6 + len("κόσμε".encode()) + certain
            assert frame[1] & 0x7f < 126
            c.sock.sendall(frame[:upto])
            c.fails(1007)


def test_a_bad_byte_ends_it_at_once_within_a_message(echo):
    """The message is not ended; with the byte before it, it still might become one."""
    for bad, certain in INVALID:
        with Echo(echo) as c:
            c.send(TEXT, "κόσμε", fin=False)
            c.send(0, bad[:certain - 1], fin=False)
            c.send(PING, "alive")
            c.returns(PONG, "alive")
            c.send(0, bad[certain - 1:certain], fin=False)
            c.fails(1007)


# ---- the closing handshake ----------------------------------------------------------------------


def test_a_close_is_answered_with_its_code_and_tcp_ends(echo):
    for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999,
                 4000, 4999):
        with Echo(echo) as c:
            c.send(CLOSE, struct.pack(">H", code) + "späße".encode())
            assert c.close_code()[0] == code
            assert c.is_ended()
    with Echo(echo) as c:
        c.send(CLOSE)
        assert c.close_code()[0] == 1005
        assert c.is_ended()
    with Echo(echo) as c:
        c.send(CLOSE, struct.pack(">H", 1000) + b"x" * 123)
        assert c.close_code()[0] == 1000


def test_codes_that_mean_nothing_are_refused(echo):
    for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535):
        with Echo(echo) as c:
            c.send(CLOSE, struct.pack(">H", code))
            c.fails(1002)


def test_half_a_code_and_a_reason_that_is_no_utf8_are_refused(echo):
    with Echo(echo) as c:
        c.send(CLOSE, b"\x03")
        c.fails(1002)
    for reason in (b"\xff", b"cut \xe2\x82", b"\xed\xa0\x80"):
        with Echo(echo) as c:
            c.send(CLOSE, struct.pack(">H", 1000) + reason)
            c.fails(1007)


def test_nothing_after_a_close_is_looked_at(echo):
    for after in (RawClient.frame(TEXT, "late"), RawClient.frame(PING), RawClient.frame(CLOSE),
                  RawClient.frame(3, "broken"), os.urandom(100), b"x" * 100000):
        with Echo(echo) as c:
            c.sock.sendall(c.frame(CLOSE, struct.pack(">H", 1000)) + after)
            c.returns(CLOSE, struct.pack(">H", 1000))
            with pytest.raises(EOFError):
                c.receive()


def test_a_close_may_come_within_a_message(echo):
    with Echo(echo) as c:
        c.send(TEXT, "begun", fin=False)
        c.send(CLOSE, struct.pack(">H", 1000))
        c.returns(CLOSE, struct.pack(">H", 1000))
        assert c.is_ended()


def test_what_was_said_before_a_close_comes_back_before_it(echo):
    with Echo(echo) as c:
        c.sock.sendall(c.frame(TEXT, letters(256 * 1024)) + c.frame(TEXT, letters(256 * 1024)) +
                       c.frame(CLOSE, struct.pack(">H", 1000)) + c.frame(PING))
        for _ in range(2):
            c.returns(TEXT, letters(256 * 1024))
        c.returns(CLOSE, struct.pack(">H", 1000))
        assert c.is_ended()


# ---- large and many -----------------------------------------------------------------------------


def back_and_forth(c, data, opcode, payload, size):
    """Sends while it reads, as both ends of a large message must."""
    sender = threading.Thread(target=c.chop, args=(data, size))
    sender.start()
    try:
        c.returns(opcode, payload)
    finally:
        sender.join(harness.TIMEOUT)


def test_large_messages_come_back(echo):
    with Echo(echo) as c:
        for opcode, length in ((TEXT, 256 * 1024), (BINARY, MB), (TEXT, 4 * MB), (BINARY, 16 * MB)):
            payload = letters(length)
            back_and_forth(c, c.frame(opcode, payload), opcode, payload, 65536)
        c.ends()


def test_a_large_message_may_come_in_chops_and_in_fragments(echo):
    payload = letters(MB)
    with Echo(echo) as c:
        for size in (2048, 1031):
            back_and_forth(c, c.frame(TEXT, payload), TEXT, payload, size)
        for size in (1300, 4096, 65536):
            at = range(0, MB, size)
            frames = b"".join(c.frame(0 if i else BINARY, payload[i:i + size], fin=i == at[-1])
                              for i in at)
            back_and_forth(c, frames, BINARY, payload, 65536)
        c.ends()


def test_the_limit_is_32_megabytes(echo):
    for head in ([(BINARY, 32 * MB + 1)], [(BINARY, 0), (0, 32 * MB + 1)]):
        with Echo(echo) as c:
            for i, (opcode, length) in enumerate(head):
                c.sock.sendall(c.frame(opcode, claim=length, fin=i + 1 == len(head)))
            c.fails(1009)


def test_the_limits_of_ws_stay(echo):
    with RawClient(echo, "token=" + token(unique())) as c:
        assert c.receive_json()["type"] == "FULL_SYNC"
        c.send(TEXT, b"x" * 1025)
        assert c.close_code()[0] == 1009


def worker_bytes(server):
    with open("/proc/%d/statm" % server.worker_pids()[0], encoding="ascii") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")


def fill(c, frame, most):
    """Sends until the server reads no more; how many bytes went."""
    sent = 0
    c.sock.setblocking(False)
    while sent < most and select.select([], [c.sock], [], 1)[1]:
        try:
            sent += c.sock.send(frame[sent % len(frame):])
        except BlockingIOError:
            pass
    c.sock.settimeout(harness.TIMEOUT)
    return sent


def test_who_sends_and_does_not_read_is_not_read_from(echo):
    """And gets everything in the end."""
    payload = letters(100000)
    with Echo(echo, receive_buffer=65536) as c, Echo(echo) as other:
        frame = c.frame(TEXT, payload)
        before = worker_bytes(echo)
        sent = fill(c, frame, 64 * MB)
        assert sent < 32 * MB
        if not harness.is_sanitized():
            assert worker_bytes(echo) - before < 16 * MB
        other.ends()
        count = sent // len(frame) + 1
        rest = threading.Thread(target=c.chop, args=(frame[sent % len(frame):], 65536))
        rest.start()
        for _ in range(count):
            c.returns(TEXT, payload)
        rest.join(harness.TIMEOUT)
        c.ends()


# ---- and nothing else ---------------------------------------------------------------------------


def test_nothing_comes_unasked(echo):
    """While a device is pinged several times; and its silence is no reason to close."""
    with Echo(echo) as c, RawClient(echo, "token=" + token(unique())) as device:
        assert device.receive_json()["type"] == "FULL_SYNC"
        for _ in range(4):
            opcode, payload = device.receive()
            assert opcode == PING
            device.send(PONG, payload)
        c.ends()


def test_no_token_is_asked_for_and_none_is_looked_at(echo):
    with Echo(echo, query="token=nonsense&types=X") as c:
        c.ends()


def test_it_counts_as_a_websocket_of_no_user(echo):
    with Echo(echo):
        stats = echo.stats()
        assert stats["statistics"]["active_connections"] == 1
        assert stats["statistics"]["connected_users"] == 0
    eventually(lambda: echo.stats()["statistics"]["active_connections"] == 0, "it has left")


def test_only_local_listeners_may_have_it(echo):
    for listen, is_good in (("0.0.0.0:0", False), ("[::]:0", False), ("*:0", False),
                            ("127.0.0.1:0", True), ("[::1]:0", True),
                            ("unix:" + echo.directory + "/echo.sock", True)):
        done = subprocess.run(
            [harness.BELFRYD, "--test-config", "--config", echo.config, "--listen", listen],
            env=echo.environment(), capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == is_good, done.stderr
        assert ("echo" in done.stderr) == (not is_good)


async def test_it_is_served_on_a_unix_socket(make_server):
    place = harness.make_directory()
    try:
        os.chmod(place, 0o777)
        server = make_server(echo="on", listen="unix:%s/s" % place)
        async with await Client.open(server, path="/echo") as c:
            await c.send("over a unix socket")
            assert await c.raw() == "over a unix socket"
    finally:
        harness.remove_directory(place)


async def test_a_foreign_client_is_content(echo):
    async with await Client.open(echo, path="/echo") as c:
        for message in ("", "text", "é€😀" * 1000, b"", b"\x00\xff" * 40000, "x" * MB):
            await c.send(message)
            assert await c.raw() == message
        await c.ws.send(["in", " ", "fragments"])
        assert await c.raw() == "in fragments"
        pong = await c.ws.ping("how long")
        await pong
