# SPDX-License-Identifier: LGPL-2.1-or-later
"""Plans and records as JSON: read as what others may have written."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import virmirror
from support.plans import LAYER, PLAN
from virmirror import values


def changed(*path, value):
    """Return the JSON text of PLAN with the member at ``path`` replaced."""
    data = json.loads(PLAN.to_json())
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(data)


def test_plan_is_the_same_after_json():
    assert virmirror.Plan.from_json(PLAN.to_json()) == PLAN


@given(text=st.text(), number=st.integers(0, 2**64), budget=st.floats(0, 1e6))
def test_plan_with_any_values_is_the_same_after_json(text, number, budget):
    layer = dataclasses.replace(LAYER, source=text, backing_name=text, ino=number)
    disk = dataclasses.replace(PLAN.disks[0], layers=(layer, layer))
    plan = dataclasses.replace(PLAN, domain=text, disks=(disk,), pause_budget=budget)
    assert virmirror.Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no JSON text"),
        ("[" * 100_000, "no JSON text"),
        ("[]", "Plan is no object"),
        ("{}", "Plan lacks a field"),
        (" " * (values.MAX_SIZE + 1), "longer than"),
        (changed("more", value=1), "'more'"),
        (changed("bandwidth", value="7"), "Plan.bandwidth"),
        (changed("bandwidth", value=True), "Plan.bandwidth"),
        (changed("collapse", value="never"), "Plan.collapse"),
        (changed("disks", value={}), "Plan.disks"),
        (changed("disks", 0, "layers", 0, "ino", value=1.5), "Plan.disks[0].layers[0].ino"),
        (changed("disks", 0, "layers", 0, "source", value=None), "layers[0].source"),
    ],
)
def test_text_that_is_no_plan_is_refused_with_its_place(text, told):
    with pytest.raises(virmirror.SpecError) as caught:
        virmirror.Plan.from_json(text)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
