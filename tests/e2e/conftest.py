"""Fixtures: servers are shared by the tests of a module wherever a test does not need its own."""

import asyncio
import atexit
import inspect
import os

import pytest

import harness

TEST_LIMIT_S = 300  # of one test; everything in it is bounded much tighter

for _name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
    os.environ.pop(_name, None)

atexit.register(harness.end_everything)

_marks = {}


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Runs tests that are coroutines, each in a loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}

    async def limited():
        await asyncio.wait_for(pyfuncitem.obj(**arguments), TEST_LIMIT_S)

    asyncio.run(limited())
    return True


def pytest_runtest_setup(item):
    del item
    _marks.clear()
    for process in harness.running():
        _marks[id(process)] = process.mark()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Shows what the servers said during a test that failed."""
    del item, call
    report = (yield).get_result()
    if not report.failed:
        return
    for process in harness.running():
        if isinstance(process, harness.Belfry):
            lines = process.log_text(_marks.get(id(process), 0)).split("\n")
            report.sections.append(("log of belfryd %s" % (process.child and process.pid),
                                    "\n".join(lines[-120:])))


@pytest.fixture(scope="module")
def redis():
    server = harness.Redis()
    yield server
    server.end()


@pytest.fixture(scope="module")
def server(redis):
    """Two workers, nearly all defaults."""
    belfry = harness.Belfry(redis, metrics_listen="127.0.0.1:0")
    belfry.wait_healthy()
    yield belfry
    try:
        belfry.stop()
    finally:
        belfry.end()


@pytest.fixture
def user():
    return harness.unique()


@pytest.fixture
def make_server(redis):
    """Makes servers that live for one test; they must stop cleanly."""
    made = []

    def make(use_redis=redis, healthy=True, **options):
        belfry = harness.Belfry(use_redis, start=False, **options)
        made.append(belfry)
        belfry.start()
        if healthy and use_redis is not None and use_redis.is_running():
            belfry.wait_healthy()
        return belfry

    yield make
    harness.end_all(made)


@pytest.fixture(scope="module")
def make_shared(redis):
    """The same for servers that live as long as the module."""
    made = []

    def make(use_redis=redis, **options):
        belfry = harness.Belfry(use_redis, start=False, **options)
        made.append(belfry)
        belfry.start()
        belfry.wait_healthy()
        return belfry

    yield make
    harness.end_all(made)


@pytest.fixture
def make_redis():
    made = []

    def make(**arguments):
        made.append(harness.Redis(**arguments))
        return made[-1]

    yield make
    for one in made:
        one.end()
