"""Waiting until something is so: bounded, and ended by what is waited for.

TIMEOUT is only reached when something is wrong, however busy the machine is. Where a test is about
how long something takes, a Stopwatch says what of the time is the machine's.
"""

import asyncio
import inspect
import os
import threading
import time

TIMEOUT = float(os.environ.get("BELFRY_TEST_TIMEOUT", "30"))


class Failure(AssertionError):
    """Something that did not come in time, or came when it must not."""


def deadline(seconds=None):
    end = time.monotonic() + (TIMEOUT if seconds is None else seconds)
    return lambda: end - time.monotonic()


def eventually(check, what, seconds=None, step=0.02):
    """The first true result of check, which asks a process that offers no event to wait for."""
    left = deadline(seconds)
    while True:
        result = check()
        if result:
            return result
        if left() <= 0:
            raise Failure("not in time: " + what)
        time.sleep(step)


async def eventually_async(check, what, seconds=None, step=0.02):
    left = deadline(seconds)
    while True:
        result = check()
        if inspect.isawaitable(result):
            result = await result
        if result:
            return result
        if left() <= 0:
            raise Failure("not in time: " + what)
        await asyncio.sleep(step)


class Stopwatch:
    """How long something takes, and how much of that this machine owes to everybody: a thread that
    asks to be woken soon, and adds up by how much it was late."""

    STEP_S = 0.01
    USUAL_S = 0.001  # no machine wakes anybody earlier than that

    def __init__(self):
        self.late_s = 0.0
        self.began = self.ended = None
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self.done.is_set():
            asked = time.monotonic()
            time.sleep(self.STEP_S)
            self.late_s += max(0.0, time.monotonic() - asked - self.STEP_S - self.USUAL_S)

    def start(self):
        self.began = time.monotonic()
        self.thread.start()
        return self

    def stop(self):
        self.ended = self.ended or time.monotonic()
        self.done.set()

    def seconds(self):
        return (self.ended or time.monotonic()) - self.began

    def is_within(self, limit_s):
        return self.seconds() <= limit_s + self.late_s

    def __repr__(self):
        return "%.2f s, %.2f of them owed by the machine" % (self.seconds(), self.late_s)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()
        self.thread.join()


class Watch:
    """Calls look again and again, in several threads, while it is entered: seen, what it returned.
    What it raised is raised at the end."""

    def __init__(self, look, threads=1):
        self.look, self.seen, self.raised = look, [], []
        self.done = threading.Event()
        self.threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def _run(self):
        while not self.done.is_set():
            try:
                self.seen.append(self.look())
            except Exception as e:  # for the thread that waits
                self.raised.append(e)
                return

    def go_on(self, times=20):
        """Until it has been called some times more."""
        many = len(self.seen) + times
        eventually(lambda: len(self.seen) >= many or self.raised, "calls")

    def __enter__(self):
        for one in self.threads:
            one.start()
        return self

    def __exit__(self, kind, error, trace):
        self.done.set()
        for one in self.threads:
            one.join()
        if self.raised and not kind:
            raise self.raised[0]
