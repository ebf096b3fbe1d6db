"""What stops a request that goes in circles. Pure: who calls it brings what was said before, per session."""

from collections.abc import Sequence

from actors.classifier.classify import DEPTH_MAX, Classification

REPEATS_MAX = 2
"""The same text may come this often within the window of one session; the third is stopped (the predecessor counted over all users)."""

WINDOW_S = 30.0
SAFETY_MIN = 0.3
MESSAGES_MAX = 1_000
PLAN_STEPS_MAX = 50


def blocked(
    found: Classification,
    *,
    depth: int,
    recent: Sequence[tuple[str, float]],
    now: float,
    route: Sequence[str] = (),
    messages: int = 0,
    steps: int = 0,
) -> str | None:
    """Why a request must not go on, None where it may.

    Args:
        depth: how many agents have handed it on.
        recent: (digest, seconds) of what this session said before, on the clock of `now`.
        route: the agents it went through, oldest first.
        messages: how many messages its conversation has.
        steps: how many steps its plan has.
    """
    if depth > DEPTH_MAX:
        return f"handed on {depth} times, at most {DEPTH_MAX}"
    if found.safety < SAFETY_MIN:
        return f"too unclear to act on (safety {found.safety:.2f})"
    if len(route) >= 3 and route[-1] == route[-3] and route[-1] != route[-2]:
        return f"goes back and forth between {route[-2]} and {route[-1]}"
    if sum(digest == found.digest and now - at <= WINDOW_S for digest, at in recent) >= REPEATS_MAX:
        return f"said {REPEATS_MAX} times within {WINDOW_S:.0f} s already"
    if messages > MESSAGES_MAX:
        return f"{messages:,} messages, at most {MESSAGES_MAX:,}"
    if steps > PLAN_STEPS_MAX:
        return f"{steps} steps planned, at most {PLAN_STEPS_MAX}"
    return None
