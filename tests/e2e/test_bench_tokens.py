"""belfry-bench with tokens that it did not make."""

import json
import os
import subprocess

import pytest

import harness
from harness import BELFRYD, token

BENCH = os.path.join(os.path.dirname(BELFRYD), "tests", "bench", "belfry-bench")
USERS = 20


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    pytest.importorskip("cryptography")
    return harness.make_key(str(tmp_path_factory.mktemp("keys")), "ec", "-algorithm", "EC",
                            "-pkeyopt", "ec_paramgen_curve:P-256")


def bench(server, tokens, *words):
    """tokens: path of a file."""
    if not os.path.exists(BENCH):
        pytest.skip("make check builds " + BENCH)
    return subprocess.run(
        [BENCH, "--config=" + server.config, *words, "--tokens=" + str(tokens), "--json",
         "--url=ws://127.0.0.1:%d" % server.port], env=server.environment(),
        capture_output=True, text=True, timeout=120, check=False)


def write_tokens(path, private, count=USERS, first=0):
    path.write_text("".join(
        token("bench-%d" % number, secret=private, algorithm="ES256") + "\n"
        for number in range(first, first + count)))
    return path


def test_who_comes_back_has_a_signature_that_is_known(make_server, key, tmp_path):
    private, public = key
    server = make_server(workers="1", jwt_algorithms="ES256", jwt_public_key_file=public,
                         metrics_listen="127.0.0.1:0")
    tokens = write_tokens(tmp_path / "tokens", private)
    done = bench(server, tokens, "storm", "--connections=%d" % USERS, "--during=50")
    assert done.returncode == 0, done.stderr
    counted = json.loads(done.stdout)
    assert counted["ok"] and counted["connections"] == USERS and counted["unrecovered"] == 0
    assert "belfry_instance_tokens_known_total %d\n" % USERS in server.metrics().text


def test_each_user_has_the_line_of_its_number(make_server, key, tmp_path):
    """Messages to bench-3 and bench-4 come to nobody else."""
    private, public = key
    server = make_server(workers="1", jwt_algorithms="ES256", jwt_public_key_file=public)
    tokens = write_tokens(tmp_path / "tokens", private)
    options = ("unicast", "--connections=2", "--messages=20")
    done = bench(server, tokens, *options, "--first-user=3")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["deliveries"] == 20
    write_tokens(tokens, private, first=1)
    done = bench(server, tokens, *options, "--first-user=3", "--limit=2")
    assert done.returncode == 1


def test_too_few_tokens_and_a_file_without_any_are_refused(make_server, tmp_path):
    server = make_server()
    tokens = tmp_path / "tokens"
    for text, told in (("a.b.c\n" * 4, "4 of them are too few"), ("", "there is none")):
        tokens.write_text(text)
        done = bench(server, tokens, "idle", "--connections=2", "--first-user=3")
        assert done.returncode == 2 and told in done.stderr
    done = bench(server, tmp_path / "absent", "idle")
    assert done.returncode == 2 and "--tokens: " in done.stderr
