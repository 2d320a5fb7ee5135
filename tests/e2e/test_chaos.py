"""A short run of tests/chaos with a fixed seed, and proof that its judge can say no (contract: What
delivery promises). make chaos runs it for as long as one likes."""

import os
import subprocess
import sys

import pytest

CHAOS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "chaos")
sys.path.insert(0, CHAOS)

from faults import WEIGHTS, schedule
from ledger import Ledger, digest

LIMIT_S = 300  # the run ends by itself long before


def test_a_short_run_keeps_every_promise():
    run = subprocess.Popen(
        [sys.executable, os.path.join(CHAOS, "chaos.py"), "--seed", "short 5", "--seconds", "13",
         "--every", "0.6", "--users", "4"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said, _ = run.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        run.terminate()
        said, _ = run.communicate()
    assert run.returncode == 0 and "result kept" in said, said
    assert "lost 0, repeated 0, disordered 0" in said
    print(said)


# ---- the schedule -------------------------------------------------------------------------------


def test_a_seed_gives_one_schedule():
    one, again, other = ([str(fault) for fault in schedule(seed, 60, 0.5, set(WEIGHTS))]
                         for seed in ("a", "a", "b"))
    assert one == again != other
    assert len(one) > 60 and all(any(kind in fault for fault in one) for kind in WEIGHTS)


# ---- the judge ----------------------------------------------------------------------------------


class Story:
    """Two producers' messages, each stored and published, and what one device got of them."""

    def __init__(self, is_original=True):
        self.ledger = Ledger()
        for producer in (0, 1):
            self.ledger.stream("u", producer)
        self.device = self.ledger.record("device", "u", is_original)

    def send(self, *names, done=True):
        for name in names:
            sent = self.ledger.begin(name, "u", 0 if name < "n" else 1,
                                     (digest("stored " + name), digest("live " + name)))
            sent.stored = sent.published = sent.begun if done else None
        return self

    def get(self, *names, **how):
        for name in names:
            self.device.on_message(name, how.get("text", "live " + name), how.get("edge", False))
        return self

    def verdict(self):
        kept = self.ledger.judge()
        assert kept == (not self.ledger.counts)
        assert len(self.ledger.problems) >= len(self.ledger.counts)
        return dict(self.ledger.counts)


def test_what_came_once_and_in_order_is_as_promised():
    assert Story().send("a", "b", "c").get("a", "b", "c").verdict() == {}
    assert Story().send("a", "x", "b", "y").get("x", "y", "a", "b").verdict() == {}
    assert Story().send("a").get("a", text="stored a").verdict() == {}


@pytest.mark.parametrize("got, expected", [
    ("", {"lost": 3}),
    ("ab", {"lost": 1}),
    ("ac", {"lost": 1}),
    ("abbc", {"repeated": 1}),
    ("abca", {"repeated": 1}),
    ("acb", {"disordered": 1}),
    ("cab", {"disordered": 2}),
    ("cc", {"lost": 2, "repeated": 1}),
    ("abcz", {"foreign": 1}),
])
def test_what_is_lost_repeated_or_disordered_is_counted(got, expected):
    assert Story().send("a", "b", "c").get(*got).verdict() == expected


def test_a_text_that_nobody_sent_is_noticed():
    assert Story().send("a").get("a", text="live  a").verdict() == {"altered": 1}


def test_a_message_that_was_never_published_is_not_promised():
    assert Story().send("a", "b").send("c", done=False).get("a", "b").verdict() == {}
    assert Story().send("a", "b").send("c", done=False).get("a", "b", "c").verdict() == {}


def test_a_new_device_is_promised_what_follows_its_first_message():
    assert Story(is_original=False).send("a", "b", "c").get("b", "c").verdict() == {}
    assert Story(is_original=False).send("a", "b", "c").get("a", "c").verdict() == {"lost": 1}


def test_a_new_device_that_got_nothing_is_promised_what_was_sent_after_its_full_sync():
    story = Story(is_original=False).send("a")
    story.device.on_sync()
    while story.send("b").ledger.messages["b"].begun <= story.device.synced:
        story = Story(is_original=False).send("a")
        story.device.on_sync()
    assert story.verdict() == {"lost": 1}


def test_of_a_device_that_is_gone_only_gaps_count():
    story = Story().send("a", "b", "c", "d").get("a", "c")
    story.device.is_retired = True
    assert story.verdict() == {"lost": 1}


def test_a_device_that_was_told_of_a_gap_has_lost_nothing_before_it():
    story = Story().send("a", "b", "c").get("a")
    story.device.on_told()
    assert story.send("d", "e").get("e").verdict() == {"lost": 1}
    assert story.ledger.told == 2


def test_repeats_at_the_edge_of_seen_are_counted_apart():
    story = Story().send("a", "x").get("x", "a").get("x", edge=True)
    assert story.verdict() == {} and story.ledger.edge == 1
