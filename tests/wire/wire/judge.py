"""Cases, and what counts as a pass. Each expectation takes what was seen and gives None, or what is wrong.

Security decides, not taste: refusing is always allowed for what no RFC obliges a server to take, if nothing of the connection
is read as another request afterwards; what is forwarded must have exactly one reading.
"""

import dataclasses
import typing

SMUGGLED = b"smuggled"


@dataclasses.dataclass
class Case:
    """One case: what is sent, which text or attack it stands for, what must come of it."""

    group: str
    name: str
    reference: str
    send: typing.Any
    expect: typing.Callable
    tls: bool = False
    methods: tuple = ("GET",)
    limit: float = 2.5
    quiet: float = 0.3
    want: int = 1
    only: tuple = ()
    run: typing.Optional[typing.Callable] = None
    alone: bool = False
    number: int = 0


class Seen:
    """What a case brought about."""

    def __init__(self, heard, requests, case):
        self.heard, self.case = heard, case
        self.requests = requests

    @property
    def statuses(self):
        return [answer.status for answer in self.heard.answers]

    def told(self):
        up = ", ".join(f"{r.method.decode('latin1')} {r.target.decode('latin1')[:50]}" + (f" ({'; '.join(r.problems)})" if r.problems else "")
                       for r in self.requests)
        end = "closed" if self.heard.closed else "open"
        return f"answers {self.statuses or 'none'}, {end} after {self.heard.seconds:.1f} s; upstream got: {up or 'nothing'}"


def wrong_upstream(seen, most, answers=None):
    """What no expectation allows to reach an upstream."""
    for request in seen.requests:
        if SMUGGLED in request.target:
            return f"a smuggled request reached the upstream: {request.target!r}"
        if request.problems:
            return f"ambiguous or malformed to the upstream: {'; '.join(request.problems)}"
    if len(seen.requests) > most:
        return f"{len(seen.requests)} requests reached the upstream"
    if len(seen.statuses) > (answers or max(most, 1)):
        return f"{len(seen.statuses)} answers: {seen.statuses}"
    if seen.heard.problems:
        return f"malformed answer: {seen.heard.problems[0]}"
    return None


def refused(*statuses, before=0, may_stay_open=False, silence=True):
    """Refused, after `before` requests were answered: 4xx, 501, 505 or a close; nothing (more) upstream; the connection ends."""
    def expect(seen):
        wrong = wrong_upstream(seen, before, before + 1)
        if wrong:
            return wrong
        if len(seen.requests) != before or seen.statuses[:before] != [200] * before:
            return f"{len(seen.requests)} of {before} reached the upstream; answers {seen.statuses}"
        last = seen.statuses[before:]
        if len(last) > 1:
            return f"answers {seen.statuses}"
        if last and statuses and last[0] not in statuses:
            return f"{last[0]} instead of {' or '.join(map(str, statuses))}"
        if last and not (400 <= last[0] < 500 or last[0] in (501, 505)):
            return f"answered {last[0]}"
        if not last and not seen.heard.closed:
            return "neither refused nor closed"
        if not last and not silence:
            return "closed without an answer"
        if not seen.heard.closed and not may_stay_open:
            return f"refused with {last[0]}, but the connection stays open"
        return None
    return expect


def passes(count=1, check=None):
    """Every request is forwarded once and answered with 200."""
    def expect(seen):
        wrong = wrong_upstream(seen, count)
        if wrong:
            return wrong
        if len(seen.requests) != count:
            return f"{len(seen.requests)} of {count} reached the upstream; answers {seen.statuses}"
        if seen.statuses != [200] * count:
            return f"answers {seen.statuses}"
        return check(seen) if check else None
    return expect


def safe(count=1, check=None):
    """Refused, or forwarded with exactly one reading and no request more than were sent."""
    def expect(seen):
        wrong = wrong_upstream(seen, count)
        if wrong:
            return wrong
        if not seen.statuses and not seen.heard.closed:
            return "neither answered nor closed"
        for request in seen.requests:
            if not request.complete and 200 in seen.statuses:
                return "answered though the request was not whole"
        return check(seen) if check and seen.requests else None
    return expect


def both(*expectations):
    def expect(seen):
        for one in expectations:
            wrong = one(seen)
            if wrong:
                return wrong
        return None
    return expect


def field_is(name, *values):
    """The upstream got these values of a field, no others."""
    def check(seen):
        for request in seen.requests:
            got = request.all(name)
            if got != [value.encode() for value in values]:
                return f"{name} reached the upstream as {got!r}"
        return None
    return check


def no_field(*names):
    def check(seen):
        for request in seen.requests:
            for name in names:
                if request.all(name):
                    return f"{name} reached the upstream as {request.all(name)!r}"
        return None
    return check


def body_is(body):
    def check(seen):
        for request in seen.requests:
            if request.body != body or not request.complete:
                return f"the upstream got the body {request.body[:40]!r}"
        return None
    return check
