"""permessage-deflate (RFC 7692): what is agreed on, what goes over the wire, what is refused.

Over plain sockets, so that every byte is seen; with Python's zlib at the other end; and with
python3-websockets, which offers the extension by itself.
"""

import json
import os
import random
import signal
import socket
import zlib

import pytest

import harness
from harness import (Client, RawClient, broadcast, eventually, message, produce, token, unique)

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
RSV1 = 4
MB = 1 << 20
OFFER = "permessage-deflate"
NO_CONTEXT = "server_no_context_takeover; client_no_context_takeover"


@pytest.fixture(scope="module")
def server(make_shared):
    return make_shared(workers="1", compression="on", echo="on", max_message_size="8k")


def deflated(data, bits=15, level=6, strategy=zlib.Z_DEFAULT_STRATEGY):
    z = zlib.compressobj(level, zlib.DEFLATED, -bits, 8, strategy)
    return (z.compress(data) + z.flush(zlib.Z_SYNC_FLUSH))[:-4]


def inflated(data, bits=15):
    """A new context for each message, of that size, and the message must be whole."""
    z = zlib.decompressobj(-bits)
    out = z.decompress(data + b"\0\0\xff\xff")
    assert not z.unconsumed_tail and not z.unused_data
    return out


class Device(RawClient):
    """Offers, and says of each message whether it came deflated."""

    def __init__(self, server, query="", path="/ws", offer=OFFER, bits=15, **more):
        headers = ["Sec-WebSocket-Extensions: " + offer] if offer else []
        super().__init__(server, query, path, headers=headers, **more)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.bits = bits
        self.was_deflated = None
        self.bytes = 0

    @property
    def answer(self):
        """The answer to the offer; None: there is none."""
        for line in self.head.split("\r\n"):
            if line.lower().startswith("sec-websocket-extensions:"):
                return line.split(":", 1)[1].strip()
        return None

    def receive(self):
        first, payload = self.receive_frame()
        assert first & 0x80 and not first & 0x30, "%x" % first
        self.was_deflated = bool(first & 0x40)
        self.bytes = len(payload)
        if self.was_deflated:
            assert first & 0x0f in (TEXT, BINARY) and self.answer
            payload = inflated(payload, self.bits)
        return first & 0x0f, payload

    def send_deflated(self, opcode, data, frames=1, bits=15):
        packed = deflated(data, bits)
        step = len(packed) // frames + 1
        for i in range(frames):
            self.send(0 if i else opcode, packed[i * step:(i + 1) * step], fin=i + 1 == frames,
                      rsv=0 if i else RSV1)

    def fails(self, code):
        got, _ = self.close_code()
        assert got == code
        assert self.is_ended()


def attach(server, user, **more):
    device = Device(server, "token=" + token(user), **more)
    assert device.receive_json()["type"] == "FULL_SYNC"
    return device


def echo(server, **more):
    return Device(server, path="/echo", **more)


def text_of(length):
    words = json.dumps({"id": "", "type": "NEW_TRANSACTION", "payload": {"amount_cents": 1}})
    return (words * (length // len(words) + 1))[:length].encode()


def counters(server):
    return server.stats()["workers"][0]["client"]


# ---- what is agreed on --------------------------------------------------------------------------


def test_an_offer_is_answered(server):
    for offer, answer in (
            (OFFER, ""),
            (OFFER + "; client_max_window_bits", ""),
            (OFFER + "; client_max_window_bits=9; server_no_context_takeover", ""),
            (OFFER + "; server_max_window_bits=9", "; server_max_window_bits=9"),
            (OFFER + "; server_max_window_bits=\"15\"", "; server_max_window_bits=15"),
            ("x-other, " + OFFER + "; server_max_window_bits=7, " + OFFER, ""),
            (OFFER + "; server_max_window_bits=10, " + OFFER, "; server_max_window_bits=10")):
        for path in ("/ws", "/echo"):
            with Device(server, path=path, offer=offer) as c:
                assert c.status == 101
                assert c.answer == OFFER + "; " + NO_CONTEXT + answer, offer


def test_an_offer_that_cannot_be_kept_to_is_not_answered(server):
    for offer in (OFFER + "; server_max_window_bits", OFFER + "; unknown", "x-webkit-deflate-frame",
                  OFFER + "; server_no_context_takeover=1", OFFER + ";", "\"", "permessage-bzip2"):
        with echo(server, offer=offer) as c:
            assert c.status == 101 and c.answer is None, offer
            c.send(TEXT, text_of(1000))
            assert c.receive() == (TEXT, text_of(1000)) and not c.was_deflated
            c.send(TEXT, deflated(b"not agreed on"), rsv=RSV1)
            c.fails(1002)


def test_offers_in_several_headers_are_one_list(server):
    with Device(server, path="/echo", offer=OFFER + "; unknown\r\nSec-WebSocket-Extensions: " +
                OFFER) as c:
        assert c.answer == OFFER + "; " + NO_CONTEXT


def test_nothing_is_agreed_on_when_it_is_off_or_not_offered(make_server, server):
    with echo(server, offer=None) as c:
        assert c.answer is None
    with echo(make_server(echo="on")) as c:
        assert c.answer is None
        c.send(TEXT, deflated(b"x"), rsv=RSV1)
        c.fails(1002)


# ---- there and back -----------------------------------------------------------------------------


def test_every_length_comes_back_deflated_where_that_pays(server):
    with echo(server) as c:
        for length in (0, 1, 125, 126, 127, 255, 256, 257, 1000, 65535, 65536, MB, MB + 1):
            for opcode in (TEXT, BINARY):
                data = text_of(length)
                c.send_deflated(opcode, data)
                assert c.receive() == (opcode, data)
                assert c.was_deflated == (256 <= length <= MB), length
                if c.was_deflated:
                    assert c.bytes < length
                c.send(opcode, data)
                assert c.receive() == (opcode, data)


def test_what_gets_no_shorter_comes_back_plain(server):
    noise = deflated(bytes(range(256)) * 3, level=9)
    with echo(server) as c:
        for data in (os.urandom(300), os.urandom(70000), noise):
            c.send_deflated(BINARY, data)
            assert c.receive() == (BINARY, data) and not c.was_deflated


def test_every_window_is_kept_to(server):
    source = random.Random(1)
    words = [bytes(source.randrange(97, 123) for _ in range(40)) for _ in range(1000)]
    far = b"".join(source.choice(words) for _ in range(2500))  # repeats itself at any distance
    for bits in range(8, 16):
        with echo(server, offer=OFFER + "; server_max_window_bits=%d" % bits, bits=bits) as c:
            for length in (256, 300, 1000, 5000, 40000, 100000):
                c.send_deflated(TEXT, far[:length], bits=max(9, bits))
                assert c.receive() == (TEXT, far[:length])
                assert c.was_deflated == (bits > 8 or length <= 256), (bits, length)


def test_every_way_to_deflate_is_understood(server):
    data = text_of(5000)
    with echo(server) as c:
        for level in range(10):
            for strategy in (zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE,
                             zlib.Z_FIXED):
                c.send(TEXT, deflated(data, level=level, strategy=strategy), rsv=RSV1)
                assert c.receive() == (TEXT, data)


def test_the_examples_of_the_rfc_are_understood(server):
    """Section 7.2.3."""
    with echo(server) as c:
        for packed in ("f248cdc9c90700", "000500faff48656c6c6f00", "f348cdc9c9070000",
                       "f248050000 00ffffcac9c90700"):
            c.send(TEXT, bytes.fromhex(packed), rsv=RSV1)
            assert c.receive() == (TEXT, b"Hello"), packed


def test_deflated_fragments_with_control_frames_between_and_cut_anywhere(server):
    data = text_of(3000)
    with echo(server) as c:
        for frames in (1, 2, 7):
            c.send_deflated(TEXT, data, frames)
            assert c.receive() == (TEXT, data)
        packed = deflated(data)
        c.send(TEXT, packed[:5], fin=False, rsv=RSV1)
        c.send(PING, "between")
        assert c.receive() == (PONG, b"between")
        c.send(0, b"", fin=False)
        c.send(0, packed[5:])
        assert c.receive() == (TEXT, data)
        whole = c.frame(TEXT, packed[:9], fin=False, rsv=RSV1) + c.frame(0, packed[9:])
        for cut in range(1, len(whole)):
            c.sock.sendall(whole[:cut])
            c.sock.sendall(whole[cut:])
            assert c.receive() == (TEXT, data)


def test_many_messages_come_back_each_by_itself(server):
    with echo(server) as c:
        for i in range(1000):
            c.send_deflated(TEXT, b"%d " % i * (i % 200 + 1))
        for i in range(1000):
            assert c.receive() == (TEXT, b"%d " % i * (i % 200 + 1))


# ---- refused ------------------------------------------------------------------------------------


def test_the_bit_stands_on_first_frames_of_messages_only(server):
    packed = deflated(b"some text")
    for frames in ([(PING, b"", True)], [(PONG, b"", True)], [(CLOSE, b"", True)],
                   [(TEXT, packed[:3], False), (0, packed[3:], True)],
                   [(0, packed, True)], [(3, packed, True)]):
        with echo(server) as c:
            for opcode, payload, fin in frames:
                c.send(opcode, payload, fin=fin, rsv=RSV1)
            c.fails(1002)
    for rsv in (1, 2, 3, 5, 6, 7):
        with echo(server) as c:
            c.send(TEXT, packed, rsv=rsv)
            c.fails(1002)


def test_what_does_not_inflate_is_refused_and_counted(server):
    before = counters(server)["inflate_errors"]
    bad = [b"\xff\xff\xff", b"\x06", b"plain text", deflated(text_of(500))[:-20],
           deflated(text_of(500))[:40] + b"\0" * 40]
    for data in bad:
        with echo(server) as c:
            c.send(TEXT, data, rsv=RSV1)
            assert c.close_code() == (1007, "invalid compressed data")
            assert c.is_ended()
    after = server.stats()["workers"][0]
    assert after["client"]["inflate_errors"] == before + len(bad)
    assert after["closes"]["closed_deflate"] >= len(bad)


def test_a_context_carried_over_is_refused(server):
    """It was agreed on that there is none."""
    z = zlib.compressobj(6, zlib.DEFLATED, -15)
    first, second = ((z.compress(text_of(900)) + z.flush(zlib.Z_SYNC_FLUSH))[:-4] for _ in range(2))
    with echo(server) as c:
        c.send(TEXT, first, rsv=RSV1)
        assert c.receive() == (TEXT, text_of(900))
        c.send(TEXT, second, rsv=RSV1)
        c.fails(1007)


def test_inflated_text_must_be_utf8(server):
    with echo(server) as c:
        c.send_deflated(BINARY, b"\xff" * 300)
        assert c.receive() == (BINARY, b"\xff" * 300)
        c.send_deflated(TEXT, "é€😀".encode() * 50)
        assert c.receive() == (TEXT, "é€😀".encode() * 50)
        c.send_deflated(TEXT, b"good \xe2\x82")
        assert c.close_code() == (1007, "invalid UTF-8")


def peak_bytes(server):
    with open("/proc/%d/status" % server.worker_pids()[0], encoding="ascii") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM"))


def test_a_bomb_ends_with_1009_and_costs_nothing(server):
    z = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"".join(z.compress(bytes(MB)) for _ in range(100)) + z.flush(zlib.Z_SYNC_FLUSH)
    bomb = packed[:-4]
    user = unique()
    for path, data, limit in (("/echo", bomb, 40), ("/ws", deflated(bytes(4 * MB)), 2)):
        peak = peak_bytes(server)
        with Device(server, "token=" + token(user), path=path) as c:
            if path == "/ws":
                assert c.receive_json()["type"] == "FULL_SYNC"
            c.send(BINARY, data, rsv=RSV1)
            assert c.close_code()[0] == 1009
        if not harness.is_sanitized():
            assert peak_bytes(server) - peak < 2 * limit * MB


def test_max_message_size_is_that_of_the_inflated_message(server):
    with attach(server, unique()) as c:
        command = {"type": "ping", "payload": {"client_time": "x" * 8000}}
        c.send_deflated(TEXT, json.dumps(command).encode())
        assert c.receive_json()["type"] == "pong"
        c.send_deflated(TEXT, b"x" * 8193)
        assert c.close_code()[0] == 1009


def test_the_rate_limit_holds_before_anything_is_inflated(make_server, user):
    server = make_server(workers="1", compression="on", client_message_rate="5")
    with attach(server, user) as c:
        command = c.frame(TEXT, deflated(b'{"type":"ping"}' + b" " * 60000), rsv=RSV1)
        c.sock.sendall(command * 100)
        assert c.close_code() == (1008, "rate limit")
    assert 5 <= counters(server)["messages_inflated"] <= 12


# ---- devices ------------------------------------------------------------------------------------


def big(user=None, **more):
    return message(user=user, payload={"text": "much the same, again and again; " * 30}, **more)


def test_a_user_s_devices_of_every_kind_get_the_same(redis, server, user):
    with attach(server, user) as one, attach(server, user, offer=None) as two, \
            attach(server, user, offer=OFFER + "; server_max_window_bits=9", bits=9) as three:
        before = counters(server)
        sent = [big(user), big(user), message(user=user)]
        produce(redis, user, *sent)
        for c in (one, two, three):
            got = []
            for m in sent:
                got.append(c.receive_json())
                assert m is sent[2] or c.was_deflated == (c is not two)
            assert harness.ids(got) == harness.ids(sent)
        after = counters(server)
        # Once for the large window, whoever else has it, and once for the small one.
        assert 4 <= after["messages_deflated"] - before["messages_deflated"] <= 6
        assert after["deflate_out_bytes"] - before["deflate_out_bytes"] < (
            after["deflate_in_bytes"] - before["deflate_in_bytes"]) / 2


def test_a_broadcast_is_deflated_once_for_all(redis, server):
    crowd = [attach(server, unique()) for _ in range(30)]
    crowd += [attach(server, unique(), offer=None) for _ in range(10)]
    crowd += [attach(server, unique(), offer=OFFER + "; server_max_window_bits=10", bits=10)]
    before = counters(server)
    sent = [big("system") for _ in range(50)]
    pipe = redis.client.pipeline()
    for m in sent:  # in one write, so that they are given together
        pipe.publish("ws:broadcast", json.dumps(m))
    pipe.execute()
    broadcast(redis, last := big("system"))
    for i, c in enumerate(crowd):
        got = [c.receive_json() for _ in range(51)]
        assert harness.ids(got) == harness.ids(sent + [last])
        assert c.was_deflated == (i not in range(30, 40))
    after = counters(server)
    assert after["messages_deflated"] - before["messages_deflated"] == 2 * 51
    for c in crowd:
        c.sock.close()


def test_slow_devices_get_their_messages_too(redis, make_server, user):
    """Their queue is split, conflated and filled from the list as everybody's."""
    server = make_server(workers="1", compression="on", send_buffer_limit="64k",
                         history_size="1000")
    source = random.Random(2)
    sent = [message(user=user, payload={"text": source.randbytes(1500).hex()}) for _ in range(400)]
    with attach(server, user, receive_buffer=4096) as slow, attach(server, user) as quick:
        key = "notifications:" + user
        for m in sent:
            redis.client.lpush(key, json.dumps(m))
            harness.publish(redis, user, m)
        assert harness.ids(quick.receive_json() for _ in sent) == harness.ids(sent)
        assert harness.ids(slow.receive_json() for _ in sent) == harness.ids(sent)
        assert slow.was_deflated


async def test_a_foreign_client_needs_to_know_nothing(redis, server, user):
    async with await Client.attach(server, user, compression="deflate") as c:
        agreed = getattr(c.ws, "extensions", None) or c.ws.protocol.extensions  # by its version
        assert [e.name for e in agreed] == ["permessage-deflate"]
        produce(redis, user, m := big(user), short := message(user=user))
        assert (await c.next())["id"] == m["id"]
        assert (await c.next())["id"] == short["id"]
        pong = await c.command("ping", {"client_time": "much the same " * 100})
        assert pong["payload"]["client_time"] == "much the same " * 100
    async with await Client.open(server, path="/echo", compression="deflate") as c:
        for i in range(50):
            for text in ("é€😀" * i, "x" * 1000 * i, "{" * i):
                await c.send(text)
                assert await c.raw() == text


# ---- from one worker to another -----------------------------------------------------------------


def reload(server, **changes):
    server.write_config(**changes)
    before = server.status()["generation"]
    server.signal(signal.SIGHUP)
    server.wait_status(lambda s: s["generation"] > before and s["state"] == "running" and all(
        w["state"] == "ready" and w["generation"] > before for w in s["workers"]), "reloaded")


def test_a_moved_device_keeps_it_also_within_a_message(redis, make_server, user):
    """And when it is not offered any more."""
    server = make_server(workers="1", compression="on", echo="on")
    data = text_of(30000)
    packed = deflated(data)
    with attach(server, user) as device, echo(server) as c, attach(server, user, offer=None) as old:
        c.send(TEXT, packed[:20], fin=False, rsv=RSV1)
        frame = c.frame(0, packed[20:])
        c.sock.sendall(frame[:30])
        device.send(PING)
        assert device.receive()[0] == PONG
        reload(server, compression="off")
        c.sock.sendall(frame[30:])
        assert c.receive() == (TEXT, data) and c.was_deflated
        produce(redis, user, m := big(user))
        assert device.receive_json()["id"] == m["id"] and device.was_deflated
        assert old.receive_json()["id"] == m["id"]
        device.send_deflated(TEXT, b'{"type":"ping","payload":{"client_time":"%s"}}' % (b"x" * 500))
        assert device.receive_json()["type"] == "pong" and device.was_deflated
        with Device(server, path="/echo") as new:
            assert new.answer is None


def test_a_queue_of_deflated_messages_moves(redis, make_server, user):
    server = make_server(workers="1", compression="on", history_size="1000",
                         send_buffer_limit="4M")
    source = random.Random(3)
    sent = [message(user=user, payload={"text": source.randbytes(5000).hex()}) for _ in range(500)]
    with attach(server, user, receive_buffer=4096) as slow:
        produce(redis, user, *sent)
        eventually(lambda: counters(server)["messages_deflated"] >= 500, "all are queued")
        reload(server)
        assert harness.ids(slow.receive_json() for _ in sent) == harness.ids(sent)
