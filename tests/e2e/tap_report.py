"""A pytest plugin that writes TAP to descriptor 3, one line as each test ends."""

import os

os.set_inheritable(3, False)
_tap = os.fdopen(3, "w", buffering=1, encoding="utf-8")
_count = 0


def _line(ok, name, note=""):
    global _count
    _count += 1
    name = name.replace("#", "").replace("\n", " ")
    _tap.write("%s %d - %s%s\n" % ("ok" if ok else "not ok", _count, name, note))


def _first_line(text):
    return str(text).strip().replace("\n", " ")[:200]


def pytest_runtest_logreport(report):
    """A test is its call; its set-up and its tear-down count only when something is wrong there."""
    name = report.nodeid.split("/")[-1]
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        if hasattr(report, "wasxfail"):
            _line(False, name, " # TODO " + _first_line(report.wasxfail))
        else:
            _line(True, name, " # SKIP " + _first_line(reason))
    elif report.failed:
        stage = "" if report.when == "call" else " (%s)" % report.when
        _line(False, name + stage)
    elif report.when == "call":
        _line(True, name, " (%.2f s)" % report.duration)


def pytest_collectreport(report):
    if report.failed:
        _line(False, "collection of " + (report.nodeid or "the tests"))


def pytest_sessionfinish(session):
    _tap.write("1..%d\n" % _count)
    _tap.flush()
