"""How long detection takes on this machine, ours and everyone's, in turns, once all answers agree."""

from __future__ import annotations
