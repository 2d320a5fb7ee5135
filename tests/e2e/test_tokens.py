"""Who may come in, and for how long (contract: GET /ws, tokens; RFC 8725)."""

import asyncio
import calendar
import os
import signal
import subprocess
import time

import jwt
import pytest

import harness
from harness import Client, SECRET, part, sign_by_hand, token

AUTH = (4001, "authentication failed")


async def accepted(server, text):
    """The user id a token is taken for."""
    async with await Client.attach(server, token_text=text) as c:
        return c.sync["user_id"]


async def refused(server, text):
    c = await Client.open(server, token_text=text)
    assert await c.closed() == AUTH
    assert c.seen == []


def now(offset=0):
    return int(time.time() + offset)


# ---- one shared secret --------------------------------------------------------------------------


async def test_a_good_token_names_the_user(server, user):
    assert await accepted(server, token(user)) == user


async def test_a_numeric_user_claim_is_taken_as_its_decimal_text(server):
    assert await accepted(server, token(12345678901)) == "12345678901"


async def test_a_user_id_may_be_any_text_and_a_token_a_dozen_claims(server):
    for user in ("ünïcödé", "a/b?c=d&e", "x" * 256, "a b"):
        text = token(user, extra={"deep": [1, {"x": None}]}, scope="a b c")
        assert await accepted(server, text) == user


@pytest.mark.parametrize("claims", [
    {"sub": None}, {"sub": ""}, {"sub": ["a"]}, {"sub": {"a": 1}}, {"sub": True},
    {"sub": "x" * 257}, {"sub": "a\nb"}, {"exp": None}, {"exp": "soon"}, {"exp": True},
    {"nbf": "soon"},
])
async def test_claims_that_make_no_sense_are_refused(server, claims):
    body = {"sub": "alice", "exp": now(600)}
    body.update(claims)
    text = sign_by_hand({k: v for k, v in body.items() if v is not None})
    await refused(server, text)


async def test_exp_and_nbf_hold_with_the_leeway(server, user):
    assert await accepted(server, token(user, exp=now(-5), iat=None)) == user
    await refused(server, token(user, exp=now(-12), iat=None))
    assert await accepted(server, token(user, nbf=now(5))) == user
    await refused(server, token(user, nbf=now(60)))
    await refused(server, token(user, exp=-1, iat=None))
    await refused(server, token(user, exp=0, iat=None))


async def test_a_signature_that_does_not_fit_is_refused(server, user):
    good = token(user)
    head, body, signature = good.split(".")
    other = part({"sub": "root", "exp": now(600), "role": "admin"})
    for bad in (token(user, secret=SECRET + "x"), "%s.%s." % (head, body), "%s.%s" % (head, body),
                "%s.%s.%s" % (head, other, signature), good + "x", good[:-2], "x" + good,
                good + "." + signature, " ", ".", "..", "a.b.c", "\x7f" * 40):
        await refused(server, bad)


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
async def test_unsigned_tokens_are_never_accepted(server, user, algorithm):
    body = part({"sub": user, "exp": now(600)})
    head = part({"alg": algorithm, "typ": "JWT"})
    await refused(server, "%s.%s." % (head, body))
    await refused(server, sign_by_hand({"sub": user, "exp": now(600)},
                                       header={"alg": algorithm, "typ": "JWT"}))


async def test_only_configured_algorithms_are_accepted(server, user):
    for algorithm in ("HS384", "HS512"):
        await refused(server, token(user, algorithm=algorithm))
    for header in ({"typ": "JWT"}, {"alg": ["HS256"]}, {"alg": "hs256"}, {"alg": "HS256 "}):
        await refused(server, sign_by_hand({"sub": user, "exp": now(600)}, header=header))


async def test_a_token_that_is_too_long_is_refused(server, user):
    await refused(server, token(user, padding="x" * 9000))


async def test_expires_at_is_told_when_the_token_came_in_a_frame(server, user):
    async with await Client.open(server) as c:
        exp = now(100)
        reply = await c.command("auth", {"token": token(user, exp=exp)})
        assert reply["type"] == "auth_ok"
        told = time.strptime(reply["payload"]["expires_at"][:19], "%Y-%m-%dT%H:%M:%S")
        assert calendar.timegm(told) == exp


# ---- during the connection ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def hasty(make_shared):
    """No leeway, so that expiry does not take long."""
    return make_shared(jwt_leeway="0s")


async def test_a_connection_ends_when_its_token_expires(hasty, user):
    exp = now(3)
    with harness.Stopwatch() as watch:
        c = await Client.attach(hasty, token_text=token(user, exp=exp))
        assert await c.closed() == (4002, "token expired")
        assert time.time() >= exp - 0.05 and watch.is_within(5), watch


async def test_a_fresh_token_in_an_auth_frame_prolongs_the_connection(hasty, user):
    exp = now(3)
    async with await Client.attach(hasty, token_text=token(user, exp=exp)) as c:
        reply = await c.command("auth", {"token": token(user, ttl=300)})
        assert reply["type"] == "auth_ok"
        await asyncio.sleep(max(0.0, exp + 0.7 - time.time()))
        await c.nothing()


async def test_a_fresh_token_of_another_user_or_a_bad_one_closes(server, user):
    for text in (token(harness.unique()), "nonsense", token(user, exp=now(-100), iat=None)):
        c = await Client.attach(server, user)
        await c.send({"type": "auth", "payload": {"token": text}})
        assert await c.closed() == AUTH


async def test_a_connection_without_exp_lives_when_exp_is_not_required(make_server, user):
    server = make_server(jwt_require_exp="no")
    assert await accepted(server, token(user, exp=None)) == user
    async with await Client.open(server) as c:
        reply = await c.command("auth", {"token": token(user, exp=None)})
        assert reply["payload"] == {"expires_at": None}
        await c.expect("FULL_SYNC")
    await refused(server, token(user, exp=now(-100), iat=None))


# ---- iss, aud, dotted claims --------------------------------------------------------------------


@pytest.fixture(scope="module")
def particular(make_shared):
    return make_shared(jwt_issuer="https://id.example.com", jwt_audience="belfry",
                       jwt_user_claim="app.user.id", admin_claim="app.roles",
                       admin_values=["boss", "chief"])


def particular_token(user, **claims):
    body = {"iss": "https://id.example.com", "aud": "belfry", "app": {"user": {"id": user}}}
    body.update(claims)
    return token("somebody-else", **body)


async def test_iss_and_aud_must_be_right_when_configured(particular, user):
    assert await accepted(particular, particular_token(user)) == user
    for claims in ({"iss": "https://id.example.com/"}, {"iss": None}, {"iss": ["belfry"]},
                   {"aud": "belfry2"}, {"aud": None}, {"aud": []}, {"aud": ["a", "b"]},
                   {"aud": {"belfry": 1}}, {"aud": "belfry x"}):
        await refused(particular, particular_token(user, **claims))


async def test_aud_may_be_a_list(particular, user):
    assert await accepted(particular, particular_token(user, aud=["a", "belfry", "b"])) == user


async def test_the_user_claim_may_be_a_dotted_path(particular, user):
    for app in ({"user": user}, {"user": {"name": user}}, {}, "x", None):
        await refused(particular, particular_token(user, app=app))
    assert await accepted(particular, particular_token(user, app={"user": {"id": 7}})) == "7"


async def test_the_admin_claim_may_be_a_dotted_path_and_a_list(particular, user):
    def status(app):
        app["user"] = {"id": user}
        return particular.http("GET", "/ws/stats", token=particular_token(user, app=app)).status
    assert status({"roles": "chief"}) == 200
    assert status({"roles": ["reader", "boss"]}) == 200
    assert status({"roles": "admin"}) == 403
    assert status({}) == 403


# ---- key pairs ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    pytest.importorskip("cryptography")
    directory = str(tmp_path_factory.mktemp("keys"))
    return {"RS256": harness.make_key(directory, "rsa", "-algorithm", "RSA", "-pkeyopt",
                                      "rsa_keygen_bits:2048"),
            "ES256": harness.make_key(directory, "ec", "-algorithm", "EC", "-pkeyopt",
                                      "ec_paramgen_curve:P-256")}


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_key_pairs_work_and_a_public_key_is_never_a_secret(
        make_server, keys, user, algorithm):
    private, public = keys[algorithm]
    server = make_server(jwt_algorithms=algorithm + ",HS256", jwt_public_key_file=public)
    assert await accepted(server, token(user, secret=private, algorithm=algorithm)) == user
    assert await accepted(server, token(user)) == user  # the secret goes with HS256
    with open(public, "rb") as f:
        text = f.read()
    for key in (text, text.rstrip(b"\n")):
        await refused(server, sign_by_hand({"sub": user, "exp": now(600)}, key))
    # A header that names the pair's algorithm over an HMAC made with the secret, or with the key.
    for key in (SECRET, text):
        await refused(server, sign_by_hand({"sub": user, "exp": now(600)}, key,
                                           {"alg": algorithm, "typ": "JWT"}))
    other = {"RS256": "ES256", "ES256": "RS256"}[algorithm]
    await refused(server, token(user, secret=keys[other][0], algorithm=other))


async def test_a_signature_is_checked_once_and_a_token_each_time(make_server, keys, user, redis):
    private, public = keys["ES256"]
    server = make_server(workers="1", jwt_algorithms="ES256,HS256", jwt_public_key_file=public)
    again = token(user, secret=private, algorithm="ES256", jti=user)
    for known in range(3):
        assert await accepted(server, again) == user
        assert server.stats()["statistics"]["connections"]["tokens_known"] == known
    redis.client.set("denylist:" + user, "")
    await refused(server, again)
    redis.client.delete("denylist:" + user)
    assert await accepted(server, again) == user
    await refused(server, again[:-8] + "AAAAAAAA")
    mark = server.mark()
    server.signal(signal.SIGHUP)
    server.wait_log("reloaded", after=mark)
    assert await accepted(server, again) == user


async def test_an_algorithm_that_is_not_configured_is_refused_though_a_key_would_fit(
        make_server, keys, user):
    private, public = keys["RS256"]
    server = make_server(jwt_algorithms="RS256", jwt_public_key_file=public)
    assert await accepted(server, token(user, secret=private, algorithm="RS256")) == user
    await refused(server, token(user))
    await refused(server, jwt.encode({"sub": user, "exp": now(600)}, private, algorithm="RS512"))


async def test_no_token_stands_in_the_log(server, user):
    good, bad = token(user), token(user, secret="x" * 40)
    assert await accepted(server, good) == user
    await refused(server, bad)
    text = server.log_text()
    for one in (good, bad):
        assert one not in text and one.split(".")[2] not in text and one.split(".")[1] not in text
