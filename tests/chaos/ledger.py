"""Who was promised what, and who got what: the judge of a chaos run. No I/O.

The promise (belfry-protocol(7), "Delivery"): what a producer stored and published reaches each of
its user's devices once and in list order. With one producer for each user that is the producer's
own order; with several it is judged for each producer alone, because crossing producers have no
common one.
"""

import collections
import hashlib
import time

TRACE = 80      # events of a device that are kept
PROBLEMS = 12   # that are described; all are counted


def digest(text):
    raw = text.encode() if isinstance(text, str) else text
    return hashlib.blake2b(raw, digest_size=8).digest()


def clock(at=None):
    at = time.time() if at is None else at
    return time.strftime("%H:%M:%S", time.gmtime(at)) + ".%03d" % (at % 1 * 1000)


class Sent:
    """One message of a producer. n counts the messages of its stream (user, producer) from 0."""

    __slots__ = ("id", "user", "producer", "n", "copies", "begun", "stored", "published", "tries")

    def __init__(self, id, user, producer, n, copies):
        self.id = id
        self.user = user
        self.producer = producer
        self.n = n
        self.copies = copies     # digests of the stored and the live text
        self.begun = time.time()
        self.stored = None       # when LPUSH was acknowledged
        self.published = None    # when PUBLISH was, and with it the whole
        self.tries = 0           # commands that failed and were sent again

    def __str__(self):
        return "%s begun %s stored %s published %s, %d tries more" % (
            self.id, clock(self.begun), self.stored and clock(self.stored),
            self.published and clock(self.published), self.tries)


class Record:
    """What one device got, from its first connection on, over all that followed."""

    def __init__(self, ledger, name, user, is_original):
        self.ledger = ledger
        self.name = name
        self.user = user
        self.is_original = is_original  # it was there before anything was sent
        self.is_retired = False         # it will not come back: gaps count, the end does not
        self.synced = None              # time of its last FULL_SYNC before any message
        self.got = set()
        self.first = {}                 # producer -> n
        self.highest = {}
        self.told = {}                  # producer -> up to which n it was told of a gap
        self.before = {producer: len(stream) - 1 for (of, producer), stream
                       in ledger.streams.items() if of == user}
        self.trace = collections.deque(maxlen=TRACE)

    def note(self, text):
        self.trace.append((time.time(), text))

    def on_sync(self):
        if not self.got:
            self.synced = time.time()

    def on_told(self):
        """recovered: false, and the position had indeed left the list."""
        for (user, producer), stream in self.ledger.streams.items():
            if user == self.user and stream:
                self.told[producer] = stream[-1].n

    def on_message(self, id, text, is_edge=False):
        """is_edge: replayed, the user's producers cross, and the id is not among the `seen` of the
        connection's request. Such a repeat is within the rules: the server sends what is newer in
        the list than the oldest seen entry, and a message that the device got before that entry
        may stand behind it there."""
        ledger = self.ledger
        sent = ledger.messages.get(id)
        if sent is None or sent.user != self.user:
            ledger.problem("foreign", self, "got a message that nobody sent it: id %r" % (id,))
            return
        p, n = sent.producer, sent.n
        self.note("got %d/%d" % (p, n))
        ledger.delivered += 1
        if digest(text) not in sent.copies:
            ledger.problem("altered", self, "the text of %s is not what was sent" % sent.id)
        if id in self.got and is_edge:
            ledger.edge += 1
            return
        if id in self.got:
            ledger.problem("repeated", self, "%s came again" % sent)
            return
        self.got.add(id)
        self.first.setdefault(p, n)
        highest = self.highest.get(p)
        if highest is not None and n < highest:
            ledger.problem("disordered", self, "%s came after %d/%d" % (sent, p, highest))
            return
        self.highest[p] = n
        expected = highest + 1 if highest is not None else 0 if self.is_original else n
        if n > max(expected, self.told.get(p, -1) + 1):
            ledger.gap(self, ledger.streams[self.user, p][expected:n])

    def expects(self, sent):
        if sent.published is None:
            return False
        if self.is_retired:
            if sent.n > self.highest.get(sent.producer, -1):
                return False
        if self.is_original:
            return True
        if sent.n >= self.first.get(sent.producer, sent.n + 1):
            return True
        return self.synced is not None and sent.begun > self.synced and not self.is_retired

    def missing(self):
        """What it was promised and did not get."""
        for (user, _), stream in self.ledger.streams.items():
            if user == self.user:
                for sent in stream:
                    if sent.id not in self.got and self.expects(sent):
                        yield sent

    def lag(self, producer):
        """How many of a producer's messages it is behind; those from before its time do not
        count."""
        stream = self.ledger.streams[self.user, producer]
        highest = self.highest.get(producer, self.before.get(producer, -1))
        return 0 if self.is_retired else len(stream) - 1 - highest


class Ledger:
    COUNTED = ("lost", "repeated", "disordered", "altered", "foreign", "unjustified", "server")

    def __init__(self):
        self.messages = {}
        self.streams = {}   # (user, producer) -> [Sent]
        self.records = []
        self.delivered = 0
        self.retries = 0
        self.counts = collections.Counter()
        self.problems = []
        self.events = []    # faults: (time, text)
        self.unrecovered = 0
        self.edge = 0

    def event(self, text):
        self.events.append((time.time(), text))

    def stream(self, user, producer):
        return self.streams.setdefault((user, producer), [])

    def begin(self, id, user, producer, copies):
        stream = self.streams[user, producer]
        sent = Sent(id, user, producer, len(stream), copies)
        stream.append(sent)
        self.messages[id] = sent
        return sent

    def record(self, name, user, is_original):
        record = Record(self, name, user, is_original)
        self.records.append(record)
        return record

    def lag(self, user, producer):
        return max((r.lag(producer) for r in self.records if r.user == user), default=0)

    # -- what went wrong

    def gap(self, record, between):
        """Told when it is seen, because the traces are fresh; counted as lost or disordered when
        it turns out what it is."""
        self._describe("gap", record, "not yet got: " + "; ".join(map(str, between[:4])))

    def problem(self, kind, record, text):
        self.counts[kind] += 1
        self._describe(kind, record, text)

    def _describe(self, kind, record, text):
        if len(self.problems) >= PROBLEMS:
            return
        if kind == "lost":  # long ago; the gap has been described when it was seen
            self.problems.append("LOST at %s: %s" % (record.name, text))
            return
        lines = ["%s %s: %s" % (clock(), kind.upper(), text)]
        if record is not None:
            lines[0] = "%s %s at %s: %s" % (clock(), kind.upper(), record.name, text)
            lines += ["    %s %s" % (clock(at), what) for at, what in record.trace]
        since = time.time() - 15
        lines += ["    fault %s %s" % (clock(at), what) for at, what in self.events if at > since]
        self.problems.append("\n".join(lines))

    # -- the end

    def missing(self):
        return sum(1 for record in self.records for _ in record.missing())

    def judge(self):
        """Counts what is missing; true when every promise was kept."""
        self.told = 0
        self.expected = 0
        for record in self.records:
            for sent in record.missing():
                if sent.n <= record.told.get(sent.producer, -1):
                    self.told += 1
                else:
                    self.problem("lost", record, str(sent))
            self.expected += len(record.got)
        self.expected += self.counts["lost"]
        return not any(self.counts[kind] for kind in self.COUNTED)

    @property
    def published(self):
        return sum(1 for m in self.messages.values() if m.published is not None)
