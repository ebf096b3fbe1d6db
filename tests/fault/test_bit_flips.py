"""One flipped bit anywhere: identical answers, or the damage named, never a wrong answer (I-20, F-18, F-20, S27, S28).

By hand with counts: ``pytest -m long -s tests/fault/test_bit_flips.py``.
"""

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.support.bit_flips import Answers, Flip, Outcome, Verdict, answers, counted, flipped, flips, judge, make_image


@pytest.fixture(scope="module", params=["killed", "closed"])
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image") / "data"
    asyncio.run(make_image(folder, killed=request.param == "killed"))
    return folder


@pytest.fixture(scope="module")
def image_answers(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    copy = tmp_path_factory.mktemp("answers") / "data"
    shutil.copytree(image, copy)
    return asyncio.run(answers(copy))


def run(image: Path, image_answers: Answers, folder: Path, count: int, seed: int) -> list[tuple[Flip, Verdict]]:
    verdicts = []
    for flip in flips(image, count, seed):
        copy = folder / "copy"
        flipped(image, copy, flip)
        verdicts.append((flip, judge(image_answers, copy)))
        shutil.rmtree(copy)
    print(counted(verdicts))
    wrong = [(flip, verdict) for flip, verdict in verdicts if verdict.outcome is Outcome.WRONG]
    assert wrong == [], str(wrong[:3])[:2_000]
    return verdicts


def test_s27_no_flipped_bit_leads_to_a_wrong_answer(image: Path, image_answers: Answers, tmp_path: Path) -> None:
    verdicts = run(image, image_answers, tmp_path, 40, seed=1)
    assert len({flip.name for flip, _ in verdicts}) >= 8


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(5))
def test_s27_no_flipped_bit_of_two_hundred_leads_to_a_wrong_answer(image: Path, image_answers: Answers, tmp_path: Path, seed: int) -> None:
    run(image, image_answers, tmp_path, 200, seed=100 + seed)
