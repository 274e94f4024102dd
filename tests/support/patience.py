# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long tests wait."""

#: Seconds that a test waits for what must come. On a quiet machine nearly all of it comes
#: within one; a busy one is allowed to be slow. What must *not* come is never waited for.
PATIENCE = 120.0
