"""Waiting until something is so: bounded, and ended by what is waited for."""

import asyncio
import inspect
import os
import threading
import time

TIMEOUT = float(os.environ.get("BELFRY_TEST_TIMEOUT", "10"))


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
