"""A short run of make bench-reload: HUP and USR2 under traffic, every delivery is counted."""

import json
import os
import subprocess
import sys

import pytest

from harness import BELFRYD

HERE = os.path.dirname(os.path.abspath(__file__))
RELOAD = os.path.join(HERE, os.pardir, "bench", "reload.py")
BENCH = os.path.join(os.path.dirname(BELFRYD), "tests", "bench", "belfry-bench")
CONNECTIONS = 300


def run(*options):
    """(exit status, what was counted)"""
    if not os.path.exists(BENCH):
        pytest.skip("make check builds " + BENCH)
    done = subprocess.run(
        [sys.executable, RELOAD, "--peers=belfry", "--connections=%d" % CONNECTIONS,
         "--workers=3", "--quiet=1", *options],
        env={**os.environ, "BELFRYD": BELFRYD, "BELFRY_BENCH": BENCH}, stdout=subprocess.PIPE,
        timeout=300, check=False)
    return done.returncode, json.loads(done.stdout.splitlines()[-1])["Belfry"]


def test_a_reload_and_an_upgrade_under_traffic_are_noticed_by_nobody():
    status, counted = run("--order=HUP,USR2", "--silence=5000")
    assert {word: counted[word] for word in
            ("closed", "lost", "repeated", "disordered", "refused")} == dict.fromkeys(
                ("closed", "lost", "repeated", "disordered", "refused"), 0)
    assert status == 0
    acts = [phase for phase in counted["phases"] if "spread" in phase]
    assert [phase["name"] for phase in acts] == ["HUP 1", "USR2 2"]
    for phase in acts:
        assert len(phase["spread"]) == 3 and sum(phase["spread"]) == CONNECTIONS
        assert phase["spread"][-1] - phase["spread"][0] <= 3
        assert phase["deliveries"] > 0


def test_a_silence_that_is_too_long_is_a_failure():
    status, counted = run("--order=HUP", "--silence=100")  # 250 ms lie between broadcasts
    assert status == 1
    assert max(phase["silence_ms"] for phase in counted["phases"]) > 100
    assert counted["lost"] == 0
