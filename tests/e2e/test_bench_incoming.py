"""What make bench-whole says of those who are connected while others come in: how its processes
get their processors, and what it makes of the figures."""

import os
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, os.pardir, "bench"))

import parts  # noqa: E402
import peers  # noqa: E402
import tables  # noqa: E402

SAY = "import os; print(os.sched_getscheduler(0), os.sched_getparam(0).sched_priority)"


def scheduling(place, is_meek):
    """(policy, priority) of a process that is started there"""
    cpu = min(os.sched_getaffinity(0))
    out = subprocess.run(place.pinned(cpu, [sys.executable, "-c", SAY], is_meek),
                         stdout=subprocess.PIPE, timeout=30, check=True).stdout
    return tuple(map(int, out.split()))


def test_only_the_crowd_of_an_ordinary_run_stands_back(tmp_path):
    place = peers.Place(tmp_path, 0, 0)
    mine = os.sched_getscheduler(0), os.sched_getparam(0).sched_priority
    assert scheduling(place, is_meek=False) == mine
    assert scheduling(place, is_meek=True) == (os.SCHED_IDLE, 0)


def test_at_real_time_the_crowd_is_below_all_others(tmp_path):
    if not peers.may_be_realtime():
        pytest.skip("real-time priorities are not allowed here")
    place = peers.Place(tmp_path, 0, 0)
    place.is_realtime = True
    serving, crowd = (scheduling(place, is_meek) for is_meek in (False, True))
    assert serving[0] == crowd[0] == os.SCHED_RR
    assert serving[1] > crowd[1]


def test_one_bad_quiet_run_decides_nothing():
    """Ratios are of a round's own runs, and the middle one counts."""
    def runs(*p99s):
        return [{"latency_p50_us": 100, "latency_p99_us": p99} for p99 in p99s]

    servers = {"floor": {"quiet": runs(200, 200, 200), "incoming": runs(200, 300, 400)},
               "Belfry": {"quiet": runs(200, 9000, 200), "incoming": runs(500, 450, 600)}}
    assert tables.incoming_ratios(servers) == [2.5, 1.5, 1.5]
    text = "\n".join(tables.incoming(
        {"incoming": {setup: servers for setup in (parts.ORDINARY, parts.REAL_TIME)}}))
    assert "- ordinary: p99 while others come in, times the quiet one: 2.50\n" in text
    assert "- real time: p99 while others come in, times the quiet one: 2.50, bar 2: MISSED" in text
    assert "of the floor: 1.50" in text and "times the floor's: 1.50" in text
