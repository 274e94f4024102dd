# SPDX-License-Identifier: LGPL-2.1-or-later
"""Planning a migration without QEMU: what is refused before anything is looked at."""

import pathlib

import pytest

import virmirror


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"collapse": "never"}, "collapse must be"),
        ({"pace": "slow"}, "pace must be"),
        ({"bandwidth": -1}, "bandwidth must be"),
        ({"bandwidth": 0.5}, "bandwidth must be a whole number"),
        ({"bandwidth": float("inf")}, "bandwidth must be a whole number"),
        ({"bandwidth": float("nan")}, "bandwidth must be a whole number"),
        ({"pause_budget": -1.0}, "pause_budget must be"),
        ({"pause_budget": float("nan")}, "pause_budget must be"),
        ({"pause_budget": float("inf")}, "pause_budget must be"),
        ({"snapshots": "some"}, "snapshots must be 'refuse', 'keep' or 'follow'"),
        ({"snapshots": "follow"}, "wants collapse='commit'"),
        ({"converge": "faster"}, "converge must be"),
        ({"converge": "throttle", "pause_budget": None}, "needs a pause_budget"),
        ({"overlay_folder": ""}, "overlay_folder must be an absolute path, not ''"),
        ({"overlay_folder": "over"}, "overlay_folder must be an absolute path, not 'over'"),
    ],
)
def test_plan_with_a_bad_option_is_refused(dom, tmp_path, options, told):
    with pytest.raises(virmirror.SpecError, match=told):
        virmirror.plan(dom, {"vda": tmp_path}, **options)


def test_plan_with_several_bad_options_tells_them_all(dom, tmp_path):
    with pytest.raises(virmirror.SpecError) as caught:
        virmirror.plan(dom, {"vda": tmp_path}, collapse="never", pace="slow", bandwidth=-1)
    for told in ("collapse", "pace", "bandwidth"):
        assert told in str(caught.value)


@pytest.mark.parametrize("folder", ["", ".", "path2", pathlib.Path()])
def test_plan_into_a_folder_that_is_not_absolute_is_refused(dom, folder):
    with pytest.raises(virmirror.SpecError, match="'vda' must be an absolute path"):
        virmirror.plan(dom, {"vda": folder})
