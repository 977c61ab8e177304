"""One request at the front door, driven through every order of events up to a depth by a small model of the world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from policies.api import Dispatch, Phase, RequestView
from reference_impl.engine.api import EngineRequest, FinishReason, SampledToken, SamplingParams
from reference_impl.engine.step import Parcel
from reference_impl.serve.http.errors import ServingError
from reference_impl.serve.job import Job, Note
from reference_impl.serve.messages import Adopt, Answer, Cancel, End, Failed, Release, Submit, Tokens

REQUEST = EngineRequest(RequestView(7, 0.0, 3), (1, 2, 3), SamplingParams(3))
ANSWER = (10, 11, 12)
"""The tokens that any chain of instances yields for it."""
PREFILL, DECODE, BOTH = 0, 1, 2
"""A prefill, a decode and a colocated instance."""


@dataclass
class Held:
    """What an instance has of the request."""

    attempt: int
    generated: int
    waiting: bool = False
    """Prefilled, its KV to be pulled."""
    announced: bool = False
    """It is said that this will come."""
    pulling: bool = False
    early: bool = False
    """The final parcel has yet to come."""
    stays: bool = False
    """It decodes where it was prefilled."""


@dataclass
class World:
    """Instances and a job executor that do what they are told, when the test lets them; the job's effects."""

    job: Any = None
    asked: tuple[int, Phase] | None = None
    held: dict[int, Held] = field(default_factory=dict)
    given: list[int] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    told: list[tuple[int, Any]] = field(default_factory=list)

    def now_s(self) -> float:
        return 1.0

    def ask(self, job: Job, phase: Phase) -> None:
        assert self.asked in (None, (job.attempt, phase)), "two questions at once"
        self.asked = (job.attempt, phase)

    def withdraw(self, job: Job) -> None:
        assert self.asked is not None, "nothing was asked"
        self.asked = None

    def tell(self, instance_id: int, message: tuple[object, ...]) -> None:
        self.told.append((instance_id, message))
        match message:
            case Submit():
                assert instance_id not in self.held, "submitted twice"
                self.held[instance_id] = Held(message.attempt, len(message.request.generated))
            case Adopt():
                generated, parcel = len(message.request.generated), message.parcel
                assert parcel.tokens == 3 + generated - (not parcel.early), "an instance refuses that"
                before = self.held.get(instance_id)
                stays = before is not None and before.waiting
                assert before is None or stays or (before.early and not parcel.early), "adopted twice"
                self.held[instance_id] = Held(message.attempt, generated, pulling=True, early=parcel.early, stays=stays)
            case Release() | Cancel() | End():
                self.held.pop(instance_id, None)

    def deliver(self, job: Job, tokens: tuple[SampledToken, ...], finish: FinishReason | None) -> None:
        assert not self.ends, f"a token after {self.ends}"
        self.given += [sampled.token for sampled in tokens]
        if finish is not None:
            self.ends.append(finish)

    def give_up(self, job: Job, error: ServingError) -> None:
        assert not self.ends, f"an error after {self.ends}"
        self.ends.append(f"{error.status} {error.code}")

    def note(self, job: Job, note: Note) -> None:
        self.notes.append(note)

    # ------------------------------------------------------------------------------------------------- what may happen

    def choices(self) -> dict[str, Callable[[], None]]:
        """Everything that can happen next."""
        job = self.job
        found: dict[str, Callable[[], None]] = {}
        if self.asked is not None:
            phase = self.asked[1]
            for number in (DECODE,) if phase == "decode" else (PREFILL, BOTH):
                if number not in self.held:
                    found[f"choose {number}"] = partial(self.answer, Dispatch(number))
            if phase == "prefill":
                found["choose both"] = lambda: self.answer(Dispatch(PREFILL, DECODE))
            found["reject"] = lambda: self.answer(reject="full")
            found["no decision"] = lambda: self.answer(failure="the policy failed")
            found["executor dies"] = job.executor_lost
        for number, held in list(self.held.items()):
            found[f"{number} dies"] = partial(self.die, number)
            found[f"{number} fails"] = partial(self.fail, number, held, retry=True)
            if held.pulling:
                if not held.early:
                    found[f"{number} adopts"] = partial(self.adopt, number, held)
            elif held.waiting:
                found[f"{number} stands still"] = partial(self.stand_still, number, held)
            else:
                prefills = number == PREFILL and not held.stays
                if prefills and not held.announced and held.generated + 1 < len(ANSWER):
                    found[f"{number} announces"] = partial(self.announce, number, held)
                if held.announced:
                    found[f"{number} stops"] = partial(self.step, number, held, "stop")
                found[f"{number} yields"] = partial(self.step, number, held)
                found[f"{number} refuses"] = partial(self.fail, number, held, retry=False)
                if number == DECODE:
                    found[f"{number} drops"] = partial(self.drop, number, held)
        if not self.ends and "left" not in self.ends:
            found["client leaves"] = lambda: self.leave(job.cancel, "gone")
            found["client has enough"] = lambda: self.leave(job.end)
        return found

    def answer(self, dispatch: Dispatch | None = None, reject: str | None = None, failure: str | None = None) -> None:
        assert self.asked is not None
        (attempt, phase), self.asked = self.asked, None
        self.job.answered(Answer(7, attempt, phase, dispatch, reject, failure))

    def announce(self, number: int, held: Held) -> None:
        """Its last chunk is being computed."""
        held.announced = True
        self.job.prefilled(number, held.attempt, parcel(held.generated, early=True))

    def step(self, number: int, held: Held, stop: FinishReason | None = None) -> None:
        """A token; a prefill instance hands over unless it was the last."""
        position = held.generated
        held.generated += 1
        last = stop is not None or held.generated == len(ANSWER)
        handing_over = number == PREFILL and not last and not held.stays
        if last:
            del self.held[number]
        held.waiting = handing_over
        token = SampledToken(7, ANSWER[position])
        finish: FinishReason | None = stop or ("length" if last else None)
        self.job.said(number, Tokens(7, held.attempt, position, (token,), finish), 2.0)
        if handing_over and self.held.get(number) is held:
            self.job.prefilled(number, held.attempt, parcel(position))

    def stand_still(self, number: int, held: Held) -> None:
        """Nothing moves there any more, and it is the one that might stay."""
        self.job.prefilled(number, held.attempt, parcel(held.generated - 1))

    def adopt(self, number: int, held: Held) -> None:
        held.pulling = False
        self.job.adopted(number, held.attempt)

    def drop(self, number: int, held: Held) -> None:
        del self.held[number]
        self.job.dropped(number, held.attempt)

    def fail(self, number: int, held: Held, *, retry: bool) -> None:
        del self.held[number]
        self.job.failed(number, Failed(7, held.attempt, "worker died" if retry else "too long", retry))

    def die(self, number: int) -> None:
        """Its connection breaks; if it lives, it gives its KV up."""
        del self.held[number]
        self.job.lost(number, f"instance {number} is gone")

    def leave(self, how: Callable[..., None], *arguments: str) -> None:
        self.ends.append("left")
        how(*arguments)

    def check(self) -> None:
        assert self.given == list(ANSWER[: len(self.given)]), "tokens lost, doubled or out of order"
        assert len(self.ends) <= 1
        pulling = [held for held in self.held.values() if held.pulling]
        source = self.held.get(PREFILL)
        for held in pulling:
            assert source is not None, "what is pulled is nobody's any more"
            assert source.attempt == held.attempt, "what is pulled is another attempt's"
        if self.ends:
            assert self.job.state == "over"
            assert not self.held, f"{self.held} still hold something of a request that is over"
            assert self.asked is None
        else:
            waits = self.asked is not None or any(not (held.waiting or held.early) for held in self.held.values())
            assert waits, "nobody will ever do anything for it again"


def parcel(generated: int, *, early: bool = False) -> Parcel:
    """Of the prefill instance, when so many tokens were known before."""
    return Parcel(7, PREFILL, 3 + generated, (0,), "shm:", "p", (), early)


def begin(max_failures: int = 2) -> World:
    world = World()
    world.job = Job(REQUEST, world, max_failures)
    world.job.start()
    return world


def follow(*steps: str, max_failures: int = 2) -> World:
    world = begin(max_failures)
    for step in steps:
        world.choices()[step]()
        world.check()
    return world


STILL = ("choose both", "0 yields", "0 stands still")


def test_every_order_of_events_gives_each_token_once_and_one_end() -> None:
    depth, ends, runs = 7, set(), 0
    frontier: list[tuple[str, ...]] = [()]
    while frontier:
        path = frontier.pop()
        world = follow(*path)
        runs += 1
        ends.update(world.ends)
        if not world.ends and len(path) < depth:
            choices = world.choices()
            if path != STILL[:-1]:  # once is enough: it doubles what follows
                choices.pop(STILL[-1], None)
            frontier += [(*path, choice) for choice in choices]
    assert runs > 10_000
    assert ends == {
        "length",
        "stop",
        "left",
        "503 rejected",
        "503 no_instance",
        "503 instance_failed",
        "400 context_length_exceeded",
    }


def test_a_request_runs_on_one_instance() -> None:
    world = follow("choose 2", "2 yields", "2 yields", "2 yields")
    assert world.ends == ["length"]
    assert [note.kind for note in world.notes] == ["dispatch"]
    assert [(task.kind, task.state) for task in world.job.tasks] == [("serve", "done")]


def test_a_hand_over_releases_the_source_once_the_kv_is_there() -> None:
    world = follow("choose 0", "0 yields", "choose 1")
    assert set(world.held) == {PREFILL, DECODE}
    world = follow("choose 0", "0 yields", "choose 1", "1 adopts", "1 yields", "1 yields")
    assert world.ends == ["length"]
    assert (PREFILL, Release(7)) in world.told
    assert [(task.kind, task.instance_id, task.state) for task in world.job.tasks] == [
        ("prefill", 0, "done"),
        ("decode", 1, "done"),
    ]


def test_a_policy_that_chose_both_instances_is_not_asked_twice() -> None:
    world = follow("choose both", "0 yields")
    assert world.asked is None
    assert isinstance(world.told[-1][1], Adopt)


@pytest.mark.parametrize("path", [STILL, ("choose 0", "0 yields", "0 stands still")], ids=["on its way", "asked for"])
def test_a_request_that_might_stay_decodes_where_it_is(path: tuple[str, ...]) -> None:
    world = follow(*path)
    assert world.asked is None
    assert set(world.held) == {PREFILL}
    world = follow(*path, "0 adopts", "0 yields", "0 yields", max_failures=0)
    assert (world.ends, world.given) == (["length"], list(ANSWER))
    assert [(task.kind, task.instance_id, task.state) for task in world.job.tasks] == [
        ("prefill", 0, "done"),
        ("decode", 0, "done"),
    ]


def test_of_one_that_stays_nobody_elses_words_count() -> None:
    world = follow(*STILL)
    job = world.job
    assert (DECODE, Cancel(7, None)) in world.told
    job.adopted(DECODE, 1)  # it had all of it when it was told to forget it
    job.said(DECODE, Tokens(7, 1, 1, (SampledToken(7, 11),), None), 3.0)
    job.failed(DECODE, Failed(7, 1, "no room", True))
    job.prefilled(PREFILL, 1, parcel(0))  # said once more before it was told
    assert (world.given, job.state, job.serving, job.failures) == ([10], "adopting", PREFILL, 0)
    assert [number for number, _, _ in adoptions(world)] == [DECODE, PREFILL]


def test_one_that_arrived_just_before_it_might_have_stayed_has_left() -> None:
    world = follow("choose both", "0 yields", "1 adopts")
    world.job.prefilled(PREFILL, 1, parcel(0))
    assert (world.job.serving, world.job.state) == (DECODE, "serving")


def test_a_failed_instance_is_replaced_and_what_was_given_goes_along() -> None:
    world = follow("choose 2", "2 yields", "2 dies", "choose 0")
    assert isinstance(world.told[-1][1], Submit)
    assert world.told[-1][1].request.generated == ANSWER[:1]
    assert world.told[-1][1].attempt == 2
    lost = [note for note in world.notes if note.kind == "lost"]
    assert [(note.instance_id, note.tokens, note.at_s) for note in lost] == [(BOTH, 1, 1.0)]


def test_after_too_many_failures_there_is_one_error() -> None:
    world = follow("choose 2", "2 dies", "choose 2", "2 fails", max_failures=1)
    assert world.ends == ["503 instance_failed"]
    assert [note.kind for note in world.notes][-1] == "reject"


def test_preemption_on_a_decode_instance_is_no_failure() -> None:
    path = ["choose 0", "0 yields", "choose 1", "1 adopts", "1 drops", "choose 0"]
    world = follow(*path, max_failures=0)
    assert world.ends == []
    assert world.job.failures == 0


def test_kv_whose_source_cannot_be_talked_to_any_more_is_not_adopted() -> None:
    world = follow("choose 0", "0 yields", "choose 1", "0 dies")
    job = world.job
    assert (DECODE, Cancel(7, None)) in world.told
    assert not any(isinstance(message, Release) for _, message in world.told)
    job.adopted(DECODE, 1)  # it had all of it when it heard, or what came after it
    job.failed(DECODE, Failed(7, 1, "its source is gone", True))
    assert (world.asked, job.state, job.failures) == ((2, "prefill"), "asking", 1)
    assert [note.instance_id for note in world.notes if note.kind == "lost"] == [PREFILL]
    assert [(task.kind, task.state) for task in job.tasks] == [
        ("prefill", "failed"),
        ("decode", "failed"),
        ("serve", "queued"),
    ]


def test_words_of_an_earlier_attempt_are_passed_over() -> None:
    world = follow("choose 2", "2 yields", "2 dies", "choose 2")
    job = world.job
    late = SampledToken(7, 99)
    job.said(BOTH, Tokens(7, 1, 1, (late,), None), 3.0)
    job.failed(BOTH, Failed(7, 1, "late", True))
    job.adopted(BOTH, 1)
    job.dropped(BOTH, 1)
    job.answered(Answer(7, 1, "prefill", Dispatch(PREFILL)))
    assert (world.given, job.state, job.attempt) == ([10], "serving", 2)


def test_tokens_that_the_client_has_are_not_given_again() -> None:
    world = follow("choose 2", "2 yields")
    again = tuple(SampledToken(7, token) for token in ANSWER[:2])
    world.job.said(BOTH, Tokens(7, 1, 0, again, None), 3.0)
    assert world.given == [10, 11]


def test_a_gap_in_the_tokens_is_a_failure() -> None:
    world = follow("choose 2")
    world.job.said(BOTH, Tokens(7, 1, 2, (SampledToken(7, 12),), None), 3.0)
    assert (world.given, world.asked) == ([], (2, "prefill"))
    assert (BOTH, Cancel(7, None)) in world.told


def adoptions(world: World) -> list[tuple[int, bool, tuple[int, ...]]]:
    """To whom, whether early, after which tokens."""
    told = [(number, message) for number, message in world.told if isinstance(message, Adopt)]
    return [(number, message.parcel.early, message.request.generated) for number, message in told]


@pytest.mark.parametrize(
    "path", [("choose 0", "0 announces", "choose 1"), ("choose both", "0 announces")], ids=["asked", "chosen at once"]
)
def test_an_early_parcel_is_pulled_while_the_prefill_goes_on(path: tuple[str, ...]) -> None:
    world = follow(*path)
    assert (world.asked, world.job.state, adoptions(world)) == (None, "serving", [(DECODE, True, ())])
    world = follow(*path, "0 yields", "1 adopts", "1 yields", "1 yields")
    assert adoptions(world) == [(DECODE, True, ()), (DECODE, False, ANSWER[:1])]
    assert (world.ends, world.job.failures) == (["length"], 0)
    assert [(task.kind, task.instance_id, task.state) for task in world.job.tasks] == [
        ("prefill", 0, "done"),
        ("decode", 1, "done"),
    ]


def test_an_early_question_that_is_open_when_the_final_parcel_comes_is_not_put_again() -> None:
    world = follow("choose 0", "0 announces", "0 yields")
    assert (world.asked, world.job.state) == ((1, "decode"), "asking_decode")
    world.choices()["choose 1"]()
    assert adoptions(world) == [(DECODE, False, ANSWER[:1])]


@pytest.mark.parametrize("answer", ["reject", "no decision"])
def test_what_is_refused_early_is_asked_again_with_the_final_parcel(answer: str) -> None:
    world = follow("choose 0", "0 announces", answer)
    assert (world.asked, world.ends) == (None, [])
    assert follow("choose 0", "0 announces", answer, "0 yields").asked == (1, "decode")


def test_the_executor_that_an_early_question_was_put_to_is_replaced() -> None:
    assert follow("choose 0", "0 announces", "executor dies").asked == (1, "decode")


@pytest.mark.parametrize("ends", ["1 fails", "1 dies"])
def test_a_puller_that_is_lost_before_the_final_parcel_is_no_failure(ends: str) -> None:
    world = follow("choose 0", "0 announces", "choose 1", ends, max_failures=0)
    assert (world.asked, world.job.state) == (None, "serving")
    world = follow("choose 0", "0 announces", "choose 1", ends, "0 yields", max_failures=0)
    assert (world.asked, world.job.failures) == ((1, "decode"), 0)


def test_a_puller_whose_early_failure_crosses_the_final_parcel_forgets_that() -> None:
    world = follow("choose 0", "0 announces", "choose 1", "0 yields")
    world.job.failed(DECODE, Failed(7, 1, "it took too long", True))
    assert world.asked == (2, "prefill")
    assert world.held == {}
    assert (DECODE, Cancel(7, None)) in world.told


@pytest.mark.parametrize("path", [["0 announces"], ["0 announces", "choose 1"]], ids=["asking", "pulling"])
@pytest.mark.parametrize("event", ["client leaves", "client has enough", "0 stops", "0 fails", "0 dies"])
def test_nobody_pulls_for_a_prefill_that_is_over(path: list[str], event: str) -> None:
    world = follow("choose 0", *path, event)
    assert world.held == {}
    assert world.asked == (None if world.ends else (2, "prefill"))


def test_a_late_answer_to_another_question_is_passed_over() -> None:
    world = follow("choose 0", "0 announces")
    world.job.answered(Answer(7, 1, "prefill", Dispatch(BOTH)))
    assert (world.asked, world.job.serving, adoptions(world)) == ((1, "decode"), PREFILL, [])


@pytest.mark.parametrize(
    ("path", "finished_by"),
    [
        (["choose 2", "2 yields", "client has enough"], "instance"),
        (["client has enough"], "front door"),
        (["choose 0", "0 yields", "client has enough"], "front door"),
        (["choose 0", "0 yields", "choose 1", "client has enough"], "front door"),
    ],
)
def test_a_client_that_has_enough_finishes_the_request(path: list[str], finished_by: str) -> None:
    world = follow(*path)
    assert world.job.outcome == "finished"
    assert any(isinstance(message, End) for _, message in world.told) == (finished_by == "instance")
    assert any(note.kind == "finish" for note in world.notes) == (finished_by == "front door")


def test_a_client_that_left_is_noted_with_its_reason() -> None:
    world = follow("choose 2", "client leaves")
    assert world.job.outcome == "cancelled"
    assert (BOTH, Cancel(7, "gone")) in world.told
    assert world.notes[-1].reason == "gone"
