# SPDX-License-Identifier: LGPL-2.1-or-later
"""Finding the domain of a plan."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import libvirt

from . import _core
from .planning import Plan
from .sides import is_gone

__all__ = ["domain_of"]


@contextlib.contextmanager
def domain_of(plan: Plan, conn: libvirt.virConnect | None) -> Iterator[libvirt.virDomain | None]:
    """The domain of the plan, on this connection, an embedded host's, or one of its own;
    None where there is no such domain."""
    opened = None
    if conn is None and plan.uri.startswith("qemu:///embed?"):
        from . import embed  # few need it

        conn = embed.connection(plan.uri)
    if conn is None:
        _core.start_event_loop()
        conn = opened = libvirt.open(plan.uri)
    try:
        dom = None
        try:
            dom = conn.lookupByUUIDString(plan.uuid)
        except libvirt.libvirtError as error:
            if not is_gone(error):
                raise
        yield dom
    finally:
        if opened is not None:
            opened.close()
