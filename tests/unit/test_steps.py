# SPDX-License-Identifier: LGPL-2.1-or-later
"""The decision what is done next: from every situation there is a way to an end."""

import dataclasses
import itertools
from typing import get_args

import pytest

from virmirror.jobs import Phase
from virmirror.steps import (
    MOVED,
    NOT_MOVED,
    Domain,
    Refusal,
    Side,
    Situation,
    Snapshot,
    Step,
    Wish,
    next_step,
    ways,
)

PHASES = (None, *get_args(Phase))
DOMAINS = get_args(Domain)
SNAPSHOTS = get_args(Snapshot)
SIDES = get_args(Side)
WISHES = get_args(Wish)
ENDS = {"run": Step.FINISH, "undo": Step.REMOVE, "forget": Step.FORGET}


def situations():
    """Every situation with one or two disks; what cannot be together is left out."""
    sides = [frozenset(pair) for pair in itertools.combinations_with_replacement(SIDES, 2)]
    for phase, domain, snapshot, some, written in itertools.product(
        PHASES, DOMAINS, SNAPSHOTS, sides, (False, True)
    ):
        if domain == "gone" and (snapshot != "none" or some != {"gone"}):
            continue  # there is nobody to ask
        if domain == "running" and (written or snapshot == "off"):
            continue  # its files are open, and it is not off
        if domain == "off" and snapshot in ("mirroring", "ended", "cut-over", "changed"):
            continue  # that is "off", or "unclear" (a QEMU that libvirt has lost)
        if phase is None and snapshot not in ("none", "foreign"):
            continue  # without a record no snapshot is this migration's
        yield Situation(phase, domain, snapshot, some, written)


SITUATIONS = sorted(set(situations()), key=repr)


def steps_from(found, step):
    """What may be found after a step; the step itself may fail, and then is tried again."""

    def settled(sides, phase=found.phase):
        return dataclasses.replace(found, snapshot="none", sides=frozenset(sides), phase=phase)

    if step in (Step.MOVE, Step.GO_ON):
        return [settled({"mirror"}, "collapse")]
    if step is Step.PIVOT:
        # where a pivot cannot be finished, as the mirror has failed, it is aborted
        return [settled({"mirror"}), settled({"overlay"})]
    if step is Step.ABORT:
        return [settled(found.sides)]
    if step is Step.TAKE_BACK:
        return [settled({"source" if side == "overlay" else side for side in found.sides})]
    raise AssertionError(step)


def reaches_its_end(wish, found, seen=frozenset()):
    """Whether a wish comes to its end from here, whatever its steps come to."""
    step = next_step(wish, found)
    if isinstance(step, Refusal):
        return False
    if step is ENDS[wish]:
        return True
    assert step not in ENDS.values()
    assert (step, found) not in seen, "this goes round in a circle"
    seen = seen | {(step, found)}
    return all(
        reaches_its_end(wish, after, seen) or wish_is_settled(wish, after)
        for after in steps_from(found, step)
    )


def wish_is_settled(wish, found):
    """Whether what is refused now can be had by another wish."""
    return any(other != wish and reaches_its_end(other, found) for other in WISHES)


def test_all_situations_are_looked_at():
    assert len(SITUATIONS) > 4000


@pytest.mark.parametrize("phase", get_args(Phase))
@pytest.mark.parametrize("domain", DOMAINS)
def test_every_situation_has_a_way_out(phase, domain):
    for found in SITUATIONS:
        if (found.phase, found.domain) != (phase, domain):
            continue
        if domain == "off" and (found.written or found.snapshot == "unclear"):
            continue  # a QEMU that nobody knows has to end first
        assert any(reaches_its_end(wish, found) for wish in WISHES), found


@pytest.mark.parametrize("wish", WISHES)
def test_no_wish_goes_round_in_circles(wish):
    for found in SITUATIONS:
        reaches_its_end(wish, found)


def test_ways_are_those_that_are_not_refused():
    for found in SITUATIONS:
        assert set(ways(found)) == {
            wish for wish in WISHES if isinstance(next_step(wish, found), Step)
        }


def test_nothing_is_moved_but_what_is_on_the_old_side_of_a_running_domain():
    for found in SITUATIONS:
        if next_step("run", found) is Step.MOVE:
            assert found.domain == "running" and found.snapshot == "none"
            assert found.sides <= MOVED | NOT_MOVED and "source" in found.sides
            assert "overlay" not in found.sides


def test_nothing_is_finished_but_what_is_on_the_new_side():
    for found in SITUATIONS:
        if next_step("run", found) is Step.FINISH:
            assert found.domain == "running" and found.snapshot == "none"
            assert found.sides <= MOVED | {"gone"}
            assert "gone" not in found.sides or found.phase in ("collapse", "clean")


def test_nothing_is_removed_where_a_disk_is_on_the_new_side():
    for found in SITUATIONS:
        if next_step("undo", found) is Step.REMOVE:
            assert not found.sides & (MOVED | {"mixed", "overlay"})
            assert not found.written
            assert found.phase not in ("collapse", "clean")


def test_nothing_is_forgotten_while_mirrors_may_run():
    for found in SITUATIONS:
        if next_step("forget", found) is Step.FORGET:
            assert found.snapshot in ("none", "changed", "foreign")


def test_only_what_is_committed_back_is_on_an_overlay():
    for wish, found in itertools.product(WISHES, SITUATIONS):
        if next_step(wish, found) is Step.TAKE_BACK:
            assert "overlay" in found.sides and found.snapshot == "none" and not found.written


@pytest.mark.parametrize(
    ("wish", "found", "expected"),
    [
        ("run", Situation(None, "running", "none", frozenset({"source"})), Step.MOVE),
        ("run", Situation(None, "running", "none", frozenset({"elsewhere"})), "diverged"),
        ("run", Situation("copy", "running", "mirroring", frozenset({"overlay"})), Step.GO_ON),
        ("undo", Situation("copy", "running", "mirroring", frozenset({"overlay"})), Step.ABORT),
        ("run", Situation("copy", "running", "none", frozenset({"overlay"})), Step.TAKE_BACK),
        ("run", Situation("copy", "off", "none", frozenset({"overlay"})), "invalid-state"),
        ("undo", Situation("copy", "off", "none", frozenset({"overlay"})), Step.TAKE_BACK),
        ("run", Situation("cut-over", "running", "cut-over", frozenset({"mirror"})), Step.PIVOT),
        (
            "run",
            Situation("cut-over", "running", "none", frozenset({"mirror", "source"})),
            Step.MOVE,
        ),
        ("run", Situation("clean", "running", "none", frozenset({"collapsed"})), Step.FINISH),
        ("undo", Situation("clean", "running", "none", frozenset({"collapsed"})), "invalid-state"),
        ("undo", Situation("clean", "running", "none", frozenset({"source"})), "diverged"),
        ("run", Situation("collapse", "running", "none", frozenset({"source"})), "diverged"),
        ("forget", Situation("collapse", "running", "none", frozenset({"source"})), Step.FORGET),
        ("undo", Situation("prepare", "running", "none", frozenset({"old"})), Step.REMOVE),
        ("run", Situation("copy", "gone", "none", frozenset({"gone"})), "not-found"),
        ("undo", Situation("copy", "gone", "none", frozenset({"gone"})), Step.REMOVE),
        ("undo", Situation("cut-over", "gone", "none", frozenset({"gone"})), "not-found"),
        ("forget", Situation("cut-over", "gone", "none", frozenset({"gone"})), Step.FORGET),
        ("run", Situation("prepare", "running", "foreign", frozenset({"old"})), "busy"),
        ("forget", Situation("copy", "running", "changed", frozenset({"old"})), Step.FORGET),
    ],
)
def test_step_is_the_expected_one(wish, found, expected):
    step = next_step(wish, found)
    assert (step.reason if isinstance(step, Refusal) else step) == expected
