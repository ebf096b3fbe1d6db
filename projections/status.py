"""How a projection stands, as its runner says and `projections` verbs and health checks show."""

import msgspec

from projections.follower import FollowerStatistics
from projections.view import Parked, Positions


class RunnerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """state: standby (another process applies), building (nothing answers yet), rebuilding (the old one answers), live, failed.

    progress: of a build, 0 to 1; eta_s: seconds it still takes at the rate of the last ten, None where not known. failure: why the last
    attempt ended, None if all is well.
    """

    name: str
    version: int
    state: str
    view: FollowerStatistics | None
    build: FollowerStatistics | None
    progress: float | None
    eta_s: float | None
    failure: str | None
    parked: list[Parked]


def progress_of(build: FollowerStatistics, target: Positions) -> tuple[float, float | None]:
    """How much of the way to `target` is done, 0 to 1, and the seconds that the rest takes; None where its rate is not known."""
    goal = sum(target.values())
    left = sum(max(0, position - build.positions_seen.get(shard, 0)) for shard, position in target.items())
    return 1.0 if goal == 0 else (goal - left) / goal, left / build.rate if build.rate > 0 else None
