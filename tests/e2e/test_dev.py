"""--dev: everything by itself, the page, and what a visitor may break."""

import gzip
import os
import re
import signal
import subprocess

import pytest

import harness
from harness import BELFRYD, Client, is_alive


class Dev(harness.Process):
    """belfryd --dev, and the tokens that it prints."""

    def __init__(self, *arguments):
        super().__init__("belfryd --dev")
        self.directory = harness.make_directory()
        control = os.path.join(self.directory, "control.sock")
        self.child = subprocess.Popen(
            [BELFRYD, "--dev", "--listen=127.0.0.1:0", "--control-socket=" + control, *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={k: v for k, v in os.environ.items() if not k.startswith("BELFRY_")})
        self.follow(self.child.stdout)
        url = re.search(r"http://(127\.0\.0\.1:\d+)", self.wait_log(r"http://127\.0\.0\.1:\d+"))
        self.addresses = [url.group(1)]
        self.tokens = harness.eventually(self._two_tokens, "a user token and an admin token")

    def _two_tokens(self):
        found = list(dict.fromkeys(re.findall(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", self.log_text())))
        return found if len(found) >= 2 else None

    def address(self, index=0):
        return harness.parse_address(self.addresses[index])

    def ask(self, method, path, **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return harness.ask_once(self.address(), method, path, headers=named)

    def end(self):
        super().end()
        harness.remove_directory(self.directory)


@pytest.fixture(scope="module")
def dev():
    one = Dev()
    yield one
    one.signal(signal.SIGINT)
    try:
        assert one.wait() == 0
    finally:
        one.end()


def page_and_assets(dev):
    """The page, and the paths of what belongs to it: none of the plain page."""
    page = dev.ask("GET", "/")
    return page, re.findall(r'(?:src|href)="(/[^"]+)"', page.text)


def test_the_page_has_the_users_token_and_nothing_of_others(dev):
    page, _ = page_and_assets(dev)
    assert page.status == 200 and page.headers["Content-Type"].startswith("text/html")
    assert dev.tokens[0] in page.text and dev.tokens[1] not in page.text
    assert "@TOKEN@" not in page.text and "://" not in page.text.replace("'ws://'", "").replace(
        "'wss://'", "")
    assert page.headers["Referrer-Policy"] == "no-referrer"


def test_the_page_is_kept_by_its_tag_and_compressed_for_who_takes_that(dev):
    page, assets = page_and_assets(dev)
    for path in ["/", *assets]:
        plain = dev.ask("GET", path)
        assert plain.status == 200 and "Content-Encoding" not in plain.headers
        assert plain.headers["Vary"] == "Accept-Encoding"
        for accepted in ("gzip", "br, gzip;q=0.5", "GZIP"):
            packed = dev.ask("GET", path, Accept_Encoding=accepted)
            assert packed.headers["Content-Encoding"] == "gzip"
            assert gzip.decompress(packed.body) == plain.body
        for accepted in ("", "br", "gzip;q=0", "gzip; q=0.0", "notgzip"):
            assert dev.ask("GET", path, Accept_Encoding=accepted).body == plain.body
        tag = plain.headers["ETag"]
        for tags in (tag, '"x", ' + tag, tag.replace("W/", ""), "*"):
            kept = dev.ask("GET", path, If_None_Match=tags)
            assert kept.status == 304 and kept.body == b"" and kept.headers["ETag"] == tag
        assert dev.ask("GET", path, If_None_Match='"x"').status == 200
        assert dev.ask("HEAD", path).body == b""
        assert dev.ask("POST", path).status == 405


def test_what_belongs_to_the_page_may_be_kept_for_ever_and_loads_from_nowhere_else(dev):
    page, assets = page_and_assets(dev)
    assert page.headers["Cache-Control"] == "no-cache"
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert not re.search(r"<script(?![^>]*src=)", page.text) and "style=" not in page.text
    for path in assets:
        kept = dev.ask("GET", path).headers["Cache-Control"]
        if path.startswith("/plain."):  # npm has not built the page: no name tells the version
            assert kept == "no-cache"
        else:
            assert "immutable" in kept and "max-age=31536000" in kept


def test_the_operators_page_is_there_without_dev_and_has_no_token(server, dev):
    page = server.http("GET", "/ws/admin")
    if page.status == 404:
        pytest.skip("npm has not built the page")
    assert page.body == dev.ask("GET", "/ws/admin").body
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assets = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)
    assert assets and all(server.http("GET", path).status == 200 for path in assets)
    assert server.http("GET", "/").status == 404
    for path in page_and_assets(dev)[1]:
        assert server.http("GET", path).status == 404
    assert not any(token in page.text for token in dev.tokens)


def test_the_demo_page_may_be_had_without_dev_and_has_no_token_then(make_server, dev):
    server = make_server(demo="on")
    page = server.http("GET", "/")
    assert page.status == 200
    assert page.text == dev.ask("GET", "/").text.replace(dev.tokens[0], "")


@pytest.mark.parametrize("what, code", [("connection", 1006), ("token", 4002), ("account", 4003),
                                        ("worker", 1006)])
async def test_a_visitor_may_break_things(dev, what, code):
    c = await Client.attach(dev, token_text=dev.tokens[0])
    await c.send({"type": "dev_break", "payload": {"what": "nothing"}})
    assert (await c.expect("error"))["payload"]["code"] == "INVALID_PAYLOAD"
    await c.send({"type": "dev_break", "payload": {"what": what}})
    assert (await c.closed())[0] == code
    async with await Client.attach(dev, token_text=dev.tokens[0]) as again:
        assert again.sync["type"] == "FULL_SYNC"


async def test_and_not_without_dev(server, user):
    async with await Client.attach(server, user) as c:
        await c.send({"type": "dev_break", "payload": {"what": "worker"}})
        assert (await c.expect("error"))["payload"]["code"] == "UNKNOWN_TYPE"


def children(dev):
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(dev.pid)], stdout=subprocess.PIPE,
                            encoding="ascii", check=True).stdout
    return [int(pid) for pid in listed.split()]


def scratch_of(dev):
    return re.search(r"--config (\S+)/belfry\.conf", dev.log_text()).group(1)


async def test_dev_starts_everything_and_leaves_nothing_behind():
    dev = Dev()
    try:
        async with await Client.attach(dev, token_text=dev.tokens[0]) as c:
            await c.nothing()
        kept = children(dev)
        assert len(kept) >= 2
        dev.signal(signal.SIGINT)
        assert dev.wait() == 0
        harness.eventually(lambda: not any(is_alive(p) for p in kept), "all children ended")
    finally:
        dev.end()


def test_what_a_killed_one_left_is_removed_by_the_next():
    dev, running = Dev(), Dev()
    try:
        left, used = scratch_of(dev), scratch_of(running)
        processes = children(dev)
        assert len(processes) >= 3, "its workers and its Redis"
        dev.signal(signal.SIGKILL)
        harness.eventually(lambda: not any(is_alive(p) for p in processes), "all children ended")
        dev.wait()
        again = Dev()
        try:
            assert not os.path.exists(left) and os.path.exists(used + "/secret")
            assert running.ask("GET", "/").status == 200
        finally:
            again.signal(signal.SIGINT)
            again.wait()
            again.end()
    finally:
        dev.end()
        running.signal(signal.SIGINT)
        running.wait()
        running.end()


# ---- pages as C ---------------------------------------------------------------------------------


def test_pages_are_embedded_when_they_change_and_by_many_at_once(tmp_path):
    embed = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../client/embed")
    pages, made = tmp_path / "dist", tmp_path / "made" / "pages.c"
    made.parent.mkdir()

    def run(at_once=1):
        """How many of them said that they wrote it."""
        all_of_them = [subprocess.Popen(["sh", embed, pages, made], stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT) for _ in range(at_once)]
        said = [one.communicate(timeout=harness.TIMEOUT * 3)[0].decode() for one in all_of_them]
        assert [one.returncode for one in all_of_them] == [0] * at_once, said
        assert os.listdir(made.parent) == ["pages.c"], "something is left behind"
        return sum("EMBED" in text for text in said)

    assert run() == 1 and "file_0" not in made.read_text() and run() == 0
    pages.mkdir()
    (pages / "a.js").write_text("1;")
    (pages / "index").write_text("/a.js text/javascript a.js\n")
    written = made.stat().st_ino
    assert run(12) >= 1 and made.stat().st_ino != written
    assert '{"/a.js", "text/javascript", file_0, sizeof(file_0)}' in made.read_text()
    assert "0x31,0x3b," in made.read_text() and made.read_text().endswith("\n};\n")
    written = made.stat()
    assert run(3) == 0 and made.stat().st_mtime_ns == written.st_mtime_ns
    (pages / "a.js").write_text("2;")
    assert run() == 1 and "0x32," in made.read_text()
    for file in pages.iterdir():
        file.unlink()
    assert run() == 1 and "file_0" not in made.read_text()
