"""libbelfry as a backend meets it: installed, found by pkg-config, linked, called."""

import asyncio
import ctypes
import errno
import json
import os
import re
import shlex
import subprocess

import pytest

from harness import TIMEOUT, Client, unique

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.dirname(os.path.abspath(os.environ.get("LIBBELFRY", "./libbelfry.la")))
EXAMPLE = os.path.join(SOURCE, "tests", "example_emit.c")
LOWER_CASE, NAIVE_TIME, CHECK_NOTHING = 1, 2, 4
NO_STORE, NO_CHECK = 1, 2


def run(argv, **how):
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    env.update(how.pop("env", {}))
    done = subprocess.run(argv, capture_output=True, text=True, env=env, check=False,
                          timeout=10 * TIMEOUT, **how)
    assert done.returncode == 0, (argv, done.stdout, done.stderr)
    return done.stdout


def makefile(name):
    with open(os.path.join(BUILD, "Makefile"), encoding="utf-8") as f:
        found = re.search(r"^%s = *(.*)$" % name, f.read(), re.M)
    return found.group(1).strip() if found else ""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The library, its header and its .pc file where `make install DESTDIR=` puts them."""
    if not os.path.exists(os.path.join(BUILD, "libbelfry.la")):
        pytest.skip("no libbelfry.la in " + BUILD)
    root = str(tmp_path_factory.mktemp("root"))
    run(["make", "-C", BUILD, "DESTDIR=" + root, "install-libLTLIBRARIES",
         "install-includeHEADERS", "install-pkgconfigDATA"])
    return root


def find(root, name):
    for folder, _, files in os.walk(root):
        if name in files:
            return os.path.join(folder, name)
    raise AssertionError("%s is not installed" % name)


def pkg_config(root, *arguments):
    env = {"PKG_CONFIG_PATH": os.path.dirname(find(root, "belfry.pc")),
           "PKG_CONFIG_SYSROOT_DIR": root, "PKG_CONFIG_ALLOW_SYSTEM_CFLAGS": "1",
           "PKG_CONFIG_ALLOW_SYSTEM_LIBS": "1"}
    return shlex.split(run(["pkg-config", *arguments, "belfry"], env=env))


def compile_example(root, source, out):
    compiler = shlex.split(os.environ.get("CC", "cc"))
    run(compiler + ["-std=c11", "-Wall", "-Wextra", "-Werror", "-o", out, source]
        + shlex.split(makefile("SAN_CFLAGS")) + pkg_config(root, "--cflags", "--libs"))


def test_the_program_of_the_manual_page_compiles_links_and_emits(installed, redis, tmp_path):
    with open(EXAMPLE, encoding="utf-8") as f:
        text = f.read()
    assert len(text.splitlines()) <= 16
    source, program = str(tmp_path / "example.c"), str(tmp_path / "example")
    with open(source, "w", encoding="utf-8") as f:
        f.write(text.replace("redis://127.0.0.1:6379/0", redis.url))
    compile_example(installed, source, program)
    redis.client.delete("notifications:alice")
    run([program], env={"LD_LIBRARY_PATH": os.path.dirname(find(installed, "libbelfry.so"))})
    stored = json.loads(redis.client.lindex("notifications:alice", 0))
    assert stored["type"] == "TRANSACTION_DELETED" and stored["payload"] == {"id": "tx-1"}


def test_the_program_of_the_manual_page_is_the_one_that_is_tested():
    with open(os.path.join(SOURCE, "man", "libbelfry.3"), encoding="utf-8") as f:
        page = f.read()
    shown = re.search(r"\.Bd -literal[^\n]*\n(#include.*?)\.Ed", page, re.S).group(1)
    shown = shown.replace("\\e", "\\").replace("\\&", "").replace("\\-", "-")
    with open(EXAMPLE, encoding="utf-8") as f:
        lines = f.read().splitlines()
    code = [line.strip() for line in lines if not line.startswith("/*")]
    assert [line.strip() for line in shown.splitlines()] == code


def test_the_script_in_the_manual_is_the_one_that_is_used(redis):
    with open(os.path.join(SOURCE, "man", "belfry-protocol.7"), encoding="utf-8") as f:
        page = f.read()
    script, sha = re.search(r"\n(local size.*?)\n\.Ed\n.*?\n\.Dl ([0-9a-f]{40})\n", page,
                            re.S).groups()
    script = script.replace("\\e", "\\").replace("\\&", "").replace("\\-", "-") + "\n"
    assert redis.client.script_load(script) == sha
    with open(os.path.join(SOURCE, "shared", "emit_script.c"), encoding="utf-8") as f:
        assert '"%s"' % sha in f.read()


def test_the_library_shows_nothing_but_its_own_names(installed):
    names = [line.split()[-1].split("@")[0] for line in
             run(["nm", "-D", "--defined-only", find(installed, "libbelfry.so")]).splitlines()]
    assert sorted(n for n in names if not n.startswith("_")) == [
        "belfry_broadcast", "belfry_close", "belfry_emit", "belfry_errmsg", "belfry_open"]
    version = pkg_config(installed, "--modversion")
    assert re.fullmatch(r"\d+\.\d+\.\d+", version[0])


# ---- calls, through ctypes ---------------------------------------------------------------------


class Config(ctypes.Structure):
    _fields_ = [("redis_url", ctypes.c_char_p), ("user_channel", ctypes.c_char_p),
                ("broadcast_channel", ctypes.c_char_p), ("notifications_key", ctypes.c_char_p),
                ("snapshot_key", ctypes.c_char_p), ("history_size", ctypes.c_long),
                ("history_ttl_s", ctypes.c_long), ("timeout_ms", ctypes.c_int),
                ("flags", ctypes.c_int)]


class Handle:
    def __init__(self, library, **config):
        self.library = library
        config = {k: v.encode() if isinstance(v, str) else v for k, v in config.items()}
        self.handle = library.belfry_open(ctypes.byref(Config(**config)))

    def __enter__(self):
        assert self.handle, self.why()
        return self

    def __exit__(self, *_):
        self.library.belfry_close(self.handle)

    def emit(self, user, kind, payload="{}", flags=0):
        """(result, id)"""
        out = ctypes.create_string_buffer(37)
        payload = payload if isinstance(payload, str) else json.dumps(payload)
        n = self.library.belfry_emit(self.handle, user.encode(), kind.encode(), payload.encode(),
                                     flags, out)
        return n, out.value.decode()

    def broadcast(self, kind, payload="{}"):
        return self.library.belfry_broadcast(self.handle, kind.encode(), payload.encode(), None)

    def why(self):
        return self.library.belfry_errmsg(self.handle).decode()


@pytest.fixture(scope="module")
def library(installed):
    if makefile("SAN_CFLAGS"):
        pytest.skip("a sanitizer's library cannot be loaded into python")
    lib = ctypes.CDLL(find(installed, "libbelfry.so"))
    lib.belfry_open.restype = ctypes.c_void_p
    lib.belfry_open.argtypes = [ctypes.c_void_p]
    lib.belfry_close.argtypes = [ctypes.c_void_p]
    lib.belfry_close.restype = None
    lib.belfry_emit.argtypes = [ctypes.c_void_p] + [ctypes.c_char_p] * 3 + [
        ctypes.c_int, ctypes.c_char_p]
    lib.belfry_broadcast.argtypes = [ctypes.c_void_p] + [ctypes.c_char_p] * 3
    lib.belfry_errmsg.restype = ctypes.c_char_p
    lib.belfry_errmsg.argtypes = [ctypes.c_void_p]
    return lib


@pytest.fixture
def handle(library, redis):
    with Handle(library, redis_url=redis.url) as b:
        yield b


def stored(redis, user):
    return [json.loads(entry) for entry in redis.client.lrange("notifications:" + user, 0, -1)]


def test_an_event_is_stored_trimmed_and_published(library, redis, user):
    with Handle(library, redis_url=redis.url, history_size=3, history_ttl_s=50) as b:
        made = [b.emit(user, "TRANSACTION_DELETED", {"id": str(i)}) for i in range(5)]
    assert [n for n, _ in made] == [0] * 5
    assert [m["id"] for m in stored(redis, user)] == [i for _, i in reversed(made)][:3]
    assert 0 < redis.client.ttl("notifications:" + user) <= 50


def test_a_device_gets_what_the_library_emits(server, library, user):
    async def check():
        with Handle(library, redis_url=server.redis.url) as b:
            async with await Client.attach(server, user) as device:
                n, made = b.emit(user, "BALANCE_UPDATE", {"account_id": "a"}, NO_CHECK)
                assert n >= 1
                got = await device.expect("BALANCE_UPDATE")
                assert got["id"] == made and got["payload"] == {"account_id": "a"}
                assert b.broadcast("MAINTENANCE_SOON") >= 1
                assert (await device.expect("MAINTENANCE_SOON"))["user_id"] == "system"

    asyncio.run(check())


def test_flags_choose_what_is_written(library, redis, user):
    with Handle(library, redis_url=redis.url, flags=LOWER_CASE | NAIVE_TIME) as b:
        b.emit(user, "TRANSACTION_DELETED", {"id": "1"})
        assert b.emit(user, "TRANSACTION_DELETED", {"id": "2"}, NO_STORE)[0] == 0
    (only,) = stored(redis, user)
    assert only["type"] == "transaction_deleted" and not only["timestamp"].endswith("Z")


@pytest.mark.parametrize("user_id, kind, payload, word", [
    ("", "X", "{}", "user"),
    ("a\nb", "X", "{}", "user"),
    ("a" * 257, "X", "{}", "user"),
    ("a", "", "{}", "type"),
    ("a", "X", "[]", "object"),
    ("a", "X", "{", "JSON"),
    ("a", "X", '{"a":' * 1100 + "1" + "}" * 1100, "deep"),
    ("a", "TRANSACTION_DELETED", "{}", "id"),
    ("a", "TRANSACTION_DELETED", '{"id":1}', "id"),
], ids=["no-user", "newline", "long-user", "no-type", "array", "no-json", "deep", "missing",
        "kind"])
def test_what_is_wrong_is_einval_and_nothing_is_sent(handle, redis, user_id, kind, payload, word):
    before = redis.client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)
    n, made = handle.emit(user_id, kind, payload)
    assert n == -errno.EINVAL and made == ""
    assert word in handle.why()
    after = redis.client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)
    assert after == before


@pytest.mark.parametrize("config, word", [
    ({"redis_url": "http://x"}, "redis_url"),
    ({"redis_url": "embedded"}, "embedded"),
    ({"user_channel": "no place for it"}, "{user_id}"),
    ({"broadcast_channel": ""}, "broadcast_channel"),
    ({"timeout_ms": -1}, "negative"),
])
def test_a_wrong_configuration_opens_nothing(library, config, word):
    b = Handle(library, **config)
    assert not b.handle and word in b.why()
    library.belfry_close(None)


def test_a_lost_redis_is_told_and_found_again(library, make_redis, user):
    redis = make_redis()
    with Handle(library, redis_url=redis.url, timeout_ms=3000) as b:
        assert b.emit(user, "X")[0] == 0
        redis.client.script_flush()
        assert b.emit(user, "X")[0] == 0
        redis.kill()
        n, _ = b.emit(user, "X")
        assert n in (-errno.ECONNREFUSED, -errno.ENOENT), (n, b.why())
        redis.start()
        assert b.emit(user, "X")[0] == 0, b.why()
        redis.pause()
        try:
            n, _ = b.emit(user, "X")
            assert n == -errno.EIO, (n, b.why())
        finally:
            redis.resume()
        assert b.emit(user, "X")[0] == 0, b.why()
    assert len(stored(redis, user)) >= 2


def test_a_password_is_used_and_never_told(library, make_redis):
    redis = make_redis(password="open sesame".replace(" ", "-"))
    with Handle(library, redis_url=redis.url) as b:
        assert b.emit(unique(), "X")[0] == 0, b.why()
    with Handle(library, redis_url=redis.url.replace("open", "shut")) as b:
        assert b.emit(unique(), "X")[0] == -errno.EACCES
        assert "sesame" not in b.why()
