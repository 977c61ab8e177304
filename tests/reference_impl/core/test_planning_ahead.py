"""An instance under a live-like host: every token once, every block one owner, a log that tells every token's time.

Forwards start late and end any time, their outcomes come later still, the two lanes of a semi-PD instance run side by
side, clients leave, and instances fail.
"""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policies.registry import BUILTIN
from reference_impl.core.instance import Instance
from reference_impl.core.lane import Lane
from reference_impl.core.sequence import Sequence
from reference_impl.events import EventLog
from reference_impl.metrics import RunLog, read, rebuild
from reference_impl.metrics.tokens import check

BATCH = ["odd", *(name for name in BUILTIN["batch"])]
ROLES = [("colocated",), ("semi_pd",), ("prefill", "decode")]
ENDS, STARTS, ACTS = 0, 1, 2
"""What comes first of one moment."""


def held_by(instance: Instance) -> Iterator[int]:
    """The requests that an instance knows."""
    yield from (*instance.promises, *instance.outbound)
    for lane in instance.lanes:
        for group in (lane.waiting, lane.prefilling, lane.decodes, lane.paused, lane.incoming):
            yield from (sequence.request_id for sequence in group)
        for iteration in lane.under_way:
            if iteration.foresight is not None:
                yield from (*iteration.foresight.due, *iteration.foresight.prefilled)


class Host:
    """Drives a colocated or semi-PD instance, or a prefill and a decode instance, like a live deployment."""

    make_row: Any
    make_flight: Any

    def __init__(
        self, build: Callable[[int], Any], count: int, rng: random.Random, *, ahead: bool, grid_s: float
    ) -> None:
        self.build, self.rng, self.ahead, self.grid_s = build, rng, ahead, grid_s
        self.log = EventLog(None, {"schema_version": 1})
        self.rows_die = False
        """Whether a failing instance takes rows with it that were not collected."""
        self.stations = [build(number) for number in range(count)]
        self.jobs: dict[int, Any] = {}
        self.now_s = 0.0
        self._events: list[tuple[float, int, int, Callable[[], None]]] = []
        self._ticket = 0
        self._inbox: deque[tuple[Sequence, Sequence]] = deque()
        self.failing_handovers = 0.0

    # ------------------------------------------------------------------------------------------------------- clock

    def at(self, time_s: float, action: Callable[[], None], place: int = ACTS) -> None:
        self._ticket += 1
        heappush(self._events, (time_s, place, self._ticket, action))

    def some_s(self, least: int = 0, most: int = 8) -> float:
        """A random time; on the grid, so that moments coincide."""
        return self.rng.randint(least, most) * self.grid_s

    def run(self, patience: int = 200_000) -> None:
        """Until nothing is left to do."""
        for _ in range(patience):
            if not self._events:
                if all(job.over for job in self.jobs.values()):
                    self._collect()
                    return
                self.at(self.now_s + self.grid_s, lambda: None)
            self.now_s, place, _, action = heappop(self._events)
            action()
            if place == ACTS:
                self._pump()
                if self.rng.random() < 0.05:
                    self._collect()
        raise AssertionError(f"no end: {[job for job in self.jobs.values() if not job.over]}")

    def _collect(self) -> None:
        """Rows of one instance reach the log late, over a wire."""
        station = self.rng.choice(self.stations) if self._events else None
        for each in self.stations:
            if station in (None, each):
                self.log.put(json.loads(json.dumps(each.log.take())))
                self.log.flush()

    # ---------------------------------------------------------------------------------------------------- requests

    def arrive(self, job: Any) -> None:
        self.jobs[job.request.request_id] = job
        self.log.arrive.append((self.now_s, job.request.request_id, job.request.prompt_tokens))
        self.dispatch(job)

    def dispatch(self, job: Any) -> None:
        """Send a request to the instance that prefills, with what its client has already."""
        self.log.dispatch.append((self.now_s, job.request.request_id, 0, None))
        job.kept, job.sent_s = len(job.times_s), self.now_s
        self.stations[0].instance.enqueue(Sequence(job.request, job.limit, len(job.times_s)))

    def cancel(self, job: Any) -> None:
        if not job.over:
            self._withdraw(job, "its client left")
            job.over = "cancelled"

    def end(self, job: Any) -> None:
        """A stop string was found."""
        if not job.over and job.times_s:
            first = self._holders(job)[0]
            assert first.instance.end(job.request.request_id, self.now_s)
            self._withdraw(job)
            job.over = "ended"

    def _withdraw(self, job: Any, reason: str | None = None) -> None:
        """Take it from wherever it is; it is rejected once at most."""
        for station in self._holders(job):
            assert station.instance.cancel(job.request.request_id, self.now_s, reason)
            assert not station.instance.cancel(job.request.request_id, self.now_s, reason)
            reason = None
        assert not self._holders(job)
        self._inbox = deque(pair for pair in self._inbox if pair[0].request_id != job.request.request_id)

    def _holders(self, job: Any) -> list[Any]:
        """Where it is: on one instance, or in a hand-over on two, the receiving one first."""
        number = job.request.request_id
        return [s for s in reversed(self.stations) if number in set(held_by(s.instance))]

    # -------------------------------------------------------------------------------------------------- iterations

    def _pump(self) -> None:
        """Plan wherever a plan may be made now."""
        self._hand_over()
        for station in self.stations:
            for lane in station.instance.lanes:
                while self._may_plan(station, lane) and self._plan(station, lane):
                    pass
            station.instance.check_integrity()
            self._resubmit(station)

    def _may_plan(self, station: Any, lane: Lane) -> bool:
        return len(station.flights[lane]) < (2 if self.ahead else 1)

    def _plan(self, station: Any, lane: Lane) -> bool:
        instance = station.instance
        iteration = instance.plan(lane, self.now_s)
        instance.check_integrity()
        if iteration is None:
            return False
        rows = [self._row(instance, sequence, n, sequence in iteration.ended) for sequence, n in iteration.chunks]
        if iteration.decodes:
            assert iteration.decodes == len(lane.decodes)
            rows += [self._row(instance, sequence, 1, True) for sequence in lane.decodes]
        start_s = max(self.now_s + self.some_s(0, 1), station.free_at_s[lane])
        flight = self.make_flight(iteration, rows, start_s, start_s + self.some_s(1))
        station.free_at_s[lane] = flight.end_s
        station.flights[lane].append(flight)
        station.told_s[lane] = max(station.told_s[lane], flight.end_s + self.some_s(0, 2))
        self.at(start_s, lambda: station.touch(rows, write=True), STARTS)
        self.at(flight.end_s, lambda: station.touch(rows, write=False), ENDS)
        self.at(station.told_s[lane], lambda: self._outcome(station, lane))
        return True

    def _row(self, instance: Instance, sequence: Any, tokens: int, yields: bool) -> Any:
        return self.make_row(instance, self.jobs[sequence.request_id], sequence, tokens, yields=yields)

    def _outcome(self, station: Any, lane: Lane) -> None:
        if station.failed:
            return
        flight = station.flights[lane].popleft()
        iteration = flight.iteration
        finished = []
        for row in flight.rows:
            number = row.job.request.request_id
            if row.yields and number not in iteration.surplus:
                row.job.times_s.append(flight.end_s)
                if len(row.job.times_s) >= row.job.tokens:
                    row.job.over, row.job.station = "finished", station
                    finished.append(number)
        station.instance.record(iteration, flight.start_s, flight.end_s)
        station.instance.complete(iteration, finished, flight.end_s, flight.start_s)
        station.instance.check_integrity()

    def _resubmit(self, station: Any) -> None:
        dropped, station.instance.dropped = station.instance.dropped, []
        if station.instance.prefill_lane is None:
            for sequence in dropped:
                self.dispatch(self.jobs[sequence.request_id])

    # --------------------------------------------------------------------------------------------------- hand-overs

    def _hand_over(self) -> None:
        source, *_, destination = self.stations if len(self.stations) > 1 else (*self.stations, *self.stations)
        for sequence in source.instance.handovers:
            job = self.jobs[sequence.request_id]
            twin = Sequence.handed_over(job.request, len(job.times_s), job.limit)
            destination.instance.expect(twin)
            self._inbox.append((sequence, twin))
        source.instance.handovers.clear()
        while self._inbox and destination.instance.reserve(self._inbox[0][1]):
            self._transfer(source, destination, *self._inbox.popleft())
        destination.instance.check_integrity()

    def _transfer(self, source: Any, destination: Any, sequence: Sequence, twin: Sequence) -> None:
        start_s = self.now_s

        def arrive() -> None:
            job = self.jobs[twin.request_id]
            if job.over or source.failed or destination.failed:
                return
            if self.rng.random() < self.failing_handovers:
                assert destination.instance.withdraw(twin.request_id)
                assert source.instance.cancel(twin.request_id, self.now_s, None)
                self.lose(job, 0)
                return
            blocks = zip(
                source.instance.name_blocks(sequence),
                destination.instance.reserved_blocks(twin.request_id),
                strict=True,
            )
            for there, here in blocks:
                for offset in range(source.instance.spec.block_tokens):
                    destination.memory[here, offset] = source.memory.get((there, offset))
            source.instance.dismiss(sequence)
            destination.instance.receive(twin, start_s, self.now_s)

        self.at(self.now_s + self.some_s(), arrive)

    # ----------------------------------------------------------------------------------------------------- failures

    def lose(self, job: Any, number: int) -> None:
        """The front door notices that an attempt failed, and tries again."""
        given = len(job.times_s)
        self.log.change.append((self.now_s, "lost", job.request.request_id, number, None, given, "its instance failed"))
        self.dispatch(job)

    def fail(self, number: int) -> None:
        """An instance dies; the tokens that were on the way to the clients are gone with it."""
        station = self.stations[number]
        hit = [job for job in self.jobs.values() if not job.over and station in self._holders(job)]
        hit += [job for job in self.jobs.values() if job.over == "finished" and job.station is station][-1:]
        for job in hit:
            given = max(job.kept, len(job.times_s) - self.rng.randint(1, 3)) if job.over else len(job.times_s)
            del job.times_s[given:]
            job.over = None if given < job.tokens else "finished"
        self._bury(number)
        for job in hit:
            if not job.over:
                self._withdraw(job)
                self.lose(job, number)

    def _bury(self, number: int) -> None:
        station = self.stations[number]
        station.failed = True
        self.stations[number] = self.build(number)
        if not self.rows_die:
            self.log.put(station.log.take())
            return
        for job in self.jobs.values():
            self._tell_what_clients_saw(job)

    def _tell_what_clients_saw(self, job: Any) -> None:
        """In place of rows that may be gone; where they are not, it says the same."""
        number, given = job.request.request_id, len(job.times_s)
        self.log.token.extend((time_s, number, i) for i, time_s in enumerate(job.times_s, 1))
        if job.over in ("finished", "ended"):
            self.log.finish.append((max(job.times_s[-1], job.sent_s + self.grid_s / 99), number, None, None, given))
        elif job.over == "cancelled":
            self.log.reject.append((self.now_s, number, "its client left"))

    def check(self) -> None:
        """Everybody got what is due, and nothing is left behind."""
        for job in self.jobs.values():
            assert job.over != "finished" or len(job.times_s) == job.tokens
        for station in self.stations:
            instance = station.instance
            instance.check_integrity()
            assert not instance.running
            assert not instance.waiting_tokens
            assert not instance.resting_tokens
            assert instance.pool.available == instance.pool.total


@pytest.fixture
def make_host(make_station: Any, make_row: Any, make_flight: Any) -> Callable[..., Host]:
    """Build a host: roles, seed, and what ``make_station`` takes."""

    def build(*roles: Any, batch: str, seed: int, ahead: bool = True, grid_s: float = 2.0**-6, **fields: Any) -> Host:
        rng = random.Random(seed)
        host = Host(
            lambda number: make_station(roles[number], batch, number, rng, **fields),
            len(roles),
            rng,
            ahead=ahead,
            grid_s=grid_s,
        )
        host.make_row, host.make_flight = make_row, make_flight
        return host

    return build


@pytest.fixture
def read_back(tmp_path: Path) -> Callable[[Host], RunLog]:
    """What a host logged."""

    def back(host: Host) -> RunLog:
        pq.write_table(host.log.table(), tmp_path / "events.parquet")
        return read(tmp_path / "events.parquet")

    return back


def fill(host: Any, new_job: Callable[..., Any], rng: random.Random, count: int) -> None:
    """Requests that arrive over time, some sharing prefixes; some end early, some are cancelled or ended on the way."""
    for number in range(count):
        prompt, limit = rng.randint(1, 60), rng.randint(1, 30)
        shared = rng.randint(0, 3)
        ids = tuple(i if i < shared else 1000 * (number + 1) + i for i in range(-(-prompt // 8)))
        tokens = rng.randint(1, limit) if rng.random() < 0.5 else limit
        job = new_job(number, prompt, tokens, limit, ids)
        arrival_s = host.some_s(0, 200)
        host.at(arrival_s, lambda job=job: host.arrive(job))
        fate = rng.random()
        if fate < 0.3:
            leave = host.cancel if fate < 0.15 else host.end
            host.at(arrival_s + host.some_s(1, 150), lambda job=job, leave=leave: leave(job))


def assert_told(host: Any, run: Any) -> None:
    """What the log says of each request is what its client got."""
    tokens = rebuild(run)
    check(run, tokens)
    for number, job in host.jobs.items():
        assert tokens.times_s(number).tolist() == job.times_s, f"request {number}"
    over = {number: job.over for number, job in host.jobs.items()}
    ended = {number for number, how in over.items() if how in ("finished", "ended")}
    assert set(run.rows["finish"].ints("request").tolist()) == ended
    assert set(run.rows["reject"].ints("request").tolist()) == over.keys() - ended


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_happens_every_token_comes_once_and_no_block_is_used_twice(
    make_host: Any, new_job: Any, read_back: Any, data: st.DataObject
) -> None:
    roles, batch = data.draw(st.sampled_from(ROLES)), data.draw(st.sampled_from(BATCH))
    rng = data.draw(st.randoms(use_true_random=False))
    host = make_host(
        *roles,
        batch=batch,
        seed=rng.randrange(1 << 30),
        ahead=data.draw(st.booleans()),
        grid_s=data.draw(st.sampled_from([2.0**-6, 0.0123])),
        kv_blocks=data.draw(st.sampled_from([24, 40, 200])),
        max_sequences=data.draw(st.sampled_from([2, 8])),
    )
    host.failing_handovers, host.rows_die = data.draw(st.sampled_from([0.0, 0.2])), data.draw(st.booleans())
    fill(host, new_job, rng, data.draw(st.integers(1, 16)))
    for _ in range(data.draw(st.sampled_from([0, 0, 2]))):
        number = rng.randrange(len(roles))
        host.at(host.some_s(20, 300) + host.grid_s / 3, lambda number=number: host.fail(number))
    host.run()
    host.check()
    assert_told(host, read_back(host))


@pytest.mark.parametrize("seed", range(3))
def test_the_check_of_blocks_can_fail(make_host: Any, new_job: Any, monkeypatch: Any, seed: int) -> None:
    """With blocks returned at once, a lane overwrites what the other lane's iteration still uses."""
    monkeypatch.setattr("reference_impl.core.iteration.Iteration.uses", lambda iteration, sequence: False)
    rng = random.Random(seed)
    host = make_host("semi_pd", batch="odd", kv_blocks=24, seed=seed)
    fill(host, new_job, rng, 60)
    with pytest.raises(AssertionError):
        host.run()
