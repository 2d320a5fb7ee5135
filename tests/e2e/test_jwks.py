"""Several keys by name (RFC 7517), and a set of them that changes while the server runs."""

import json
import os
import signal
import subprocess

import jwt
import pytest

import harness
from harness import Client, SECRET, part, token

pytest.importorskip("cryptography")

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: E402
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: E402

AUTH = (4001, "authentication failed")
OTHER = "a second end-to-end secret, long enough for HS512 as well, we hope it is"
EVERY = "HS256,HS384,HS512,RS256,RS384,RS512,PS256,PS384,PS512,ES256,ES384,ES512,EdDSA"
CURVES = {"ES256": (ec.SECP256R1(), "P-256", 32), "ES384": (ec.SECP384R1(), "P-384", 48),
          "ES512": (ec.SECP521R1(), "P-521", 66)}


def number(value, size=None):
    return part(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


def jwk(key, **more):
    """The public half of a private key, or an oct key of a text."""
    if isinstance(key, str):
        return {"kty": "oct", "k": part(key.encode()), **more}
    public = key.public_key()
    if isinstance(key, rsa.RSAPrivateKey):
        n = public.public_numbers()
        return {"kty": "RSA", "n": number(n.n), "e": number(n.e), **more}
    if isinstance(key, ec.EllipticCurvePrivateKey):
        n = public.public_numbers()
        name, size = next((c[1], c[2]) for c in CURVES.values() if c[0].name == n.curve.name)
        return {"kty": "EC", "crv": name, "x": number(n.x, size), "y": number(n.y, size), **more}
    raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {"kty": "OKP", "crv": "Ed25519", "x": part(raw), **more}


def write_set(path, *keys):
    """As it should be done: whole, and in one step."""
    with open(str(path) + ".new", "w", encoding="ascii") as f:
        json.dump({"keys": keys}, f)
    os.rename(str(path) + ".new", path)
    return str(path)


@pytest.fixture(scope="module")
def keys():
    pair = rsa.generate_private_key(65537, 2048)
    made = {alg: pair for alg in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")}
    made.update({alg: ec.generate_private_key(c[0]) for alg, c in CURVES.items()})
    made["EdDSA"] = ed25519.Ed25519PrivateKey.generate()
    return made


async def accepted(server, text):
    async with await Client.attach(server, token_text=text) as c:
        return c.sync["user_id"]


async def refused(server, text):
    c = await Client.open(server, token_text=text)
    assert await c.closed() == AUTH
    assert c.seen == []


def signed(user, key, algorithm, kid):
    return token(user, secret=key, algorithm=algorithm, headers={"kid": kid} if kid else None)


async def test_every_algorithm_works_with_a_key_of_its_own_kind(make_server, keys, user, tmp_path):
    names = {"RS256": "rsa", "ES256": "p256", "ES384": "p384", "ES512": "p521", "EdDSA": "ed"}
    path = write_set(tmp_path / "set", jwk(OTHER, kid="oct"),
                     *(jwk(keys[alg], kid=kid, use="sig") for alg, kid in names.items()))
    server = make_server(jwt_algorithms=EVERY, jwt_jwks_file=path)
    for algorithm in EVERY.split(","):
        key = keys.get(algorithm, OTHER)
        kid = names.get(algorithm, "rsa" if algorithm[1] == "S" and algorithm[0] in "RP" else "oct")
        assert await accepted(server, signed(user, key, algorithm, kid)) == user
        assert await accepted(server, signed(user, key, algorithm, None)) == user
        wrong = "ed" if kid != "ed" else "p256"
        await refused(server, signed(user, key, algorithm, wrong))
    assert await accepted(server, token(user)) == user  # the secret's file is there as well
    await refused(server, signed(user, SECRET, "HS256", "oct"))


async def test_a_public_key_of_the_set_is_never_a_secret(make_server, keys, user, tmp_path):
    one = jwk(keys["EdDSA"], kid="ed")
    server = make_server(jwt_algorithms="EdDSA,HS256",
                         jwt_jwks_file=write_set(tmp_path / "set", one))
    raw = keys["EdDSA"].public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    for kid in ({}, {"kid": "ed"}):
        text = harness.sign_by_hand({"sub": user, "exp": 4102444800}, raw,
                                    {"alg": "HS256", **kid})
        await refused(server, text)


async def test_a_set_that_changes_is_noticed_and_connections_stay(make_server, user, tmp_path):
    path = tmp_path / "set"
    server = make_server(jwt_jwks_file=write_set(path, jwk(OTHER, kid="old")))
    old, new = signed(user, OTHER, "HS256", "old"), signed(user, OTHER[1:], "HS256", "new")
    await refused(server, new)
    async with await Client.attach(server, token_text=old) as c:
        mark = server.mark()
        write_set(path, jwk(OTHER[1:], kid="new"), jwk("x" * 40, kid="enc", use="enc"))
        server.wait_log("jwks-loaded .*keys=1", after=mark)
        server.wait_log(r'jwks-note .*key 2 \(kid .*enc', after=mark)
        for worker in ("w0", "w1"):
            server.wait_log(worker + " jwks-taken keys=1", after=mark)
        assert await accepted(server, new) == user
        await refused(server, old)
        assert (await c.command("ping"))["type"] == "pong"
    # A broken one, none at all, and one that is written in place.
    for broken in (b'{"keys":[', None):
        mark = server.mark()
        if broken is None:
            path.unlink()
        else:
            path.write_bytes(broken)
        server.wait_log("jwks-refused .*old keys", after=mark)
        assert await accepted(server, new) == user
    mark = server.mark()
    path.write_text(json.dumps({"keys": [jwk(OTHER, kid="old")]}), encoding="ascii")
    for worker in ("w0", "w1"):
        server.wait_log(worker + " jwks-taken keys=1", after=mark)
    assert await accepted(server, old) == user
    text = server.log_text()
    assert OTHER not in text and part(OTHER.encode()) not in text


async def test_workers_that_come_later_have_the_new_set_and_a_reload_reads_it(
        make_server, user, tmp_path):
    path = tmp_path / "set"
    server = make_server(workers="1", jwt_jwks_file=write_set(path, jwk(OTHER, kid="a")))
    mark = server.mark()
    write_set(path, jwk(OTHER, kid="b"))
    server.wait_log("jwks-taken", after=mark)
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    before = server.status()["workers"][0]["pid"]
    server.wait_status(lambda s: s["workers"][0]["pid"] != before and
                       s["workers"][0]["state"] == "ready", "another worker")
    await refused(server, signed(user, OTHER[1:], "HS256", "b"))
    assert await accepted(server, signed(user, OTHER, "HS256", "b")) == user
    write_set(path, jwk(OTHER[1:], kid="b"))
    subprocess.run([harness.BELFRYCTL, "--config", server.config, "reload"], check=True,
                   capture_output=True)
    server.wait_ready()
    assert await accepted(server, signed(user, OTHER[1:], "HS256", "b")) == user


@pytest.mark.parametrize("how", ["reload", "upgrade"])
async def test_workers_that_end_are_given_the_new_set(make_server, user, tmp_path, how):
    # TLS connections stay with them for as long as drain-time is, and renew their tokens.
    path = tmp_path / "set"
    certificate, key = harness.make_certificate(str(tmp_path))
    server = make_server(workers="1", jwt_jwks_file=write_set(path, jwk(OTHER, kid="old")),
                         tls_certificate=certificate, tls_key=key, drain_time="1h", healthy=False)
    tls = harness.trusting(certificate)
    old, new = signed(user, OTHER, "HS256", "old"), signed(user, OTHER[1:], "HS256", "new")
    async with await Client.attach(server, token_text=old, tls=tls) as c:
        mark = server.mark()
        if how == "upgrade":
            server.upgrade()
        else:
            server.signal(signal.SIGHUP)
            server.wait_log("worker-draining", after=mark)
        mark = server.mark()
        write_set(path, jwk(OTHER[1:], kid="new"))
        harness.eventually(lambda: sum("jwks-taken" in line for line in server.lines[mark:]) == 2,
                           "both workers have it")
        assert (await c.command("auth", {"token": new}))["type"] == "auth_ok"


async def test_belfryctl_signs_with_an_oct_key(make_server, user, tmp_path, keys):
    path = write_set(tmp_path / "set", jwk(keys["RS256"], kid="r"),
                     jwk(OTHER, kid="o", alg="HS512"))
    server = make_server(jwt_algorithms="RS256,HS512", jwt_jwks_file=path, jwt_secret_file=None)

    def mint(*arguments):
        return subprocess.run([harness.BELFRYCTL, "--config", server.config, "token", "--user",
                               user, *arguments], capture_output=True, text=True, check=False)

    for arguments in ((), ("--kid", "o"), ("--jti", "id-1")):
        text = mint(*arguments).stdout.strip()
        assert jwt.get_unverified_header(text) == {"alg": "HS512", "typ": "JWT", "kid": "o"}
        assert jwt.decode(text, OTHER, algorithms=["HS512"]).get("jti") == \
            ("id-1" if "--jti" in arguments else None)
        assert await accepted(server, text) == user
    failed = mint("--kid", "r")
    assert failed.returncode == 1 and "no HMAC key" in failed.stderr
    assert mint("--jti", "a\nb").returncode == 2
