import pyarrow as pa
import pytest

from zsic.storage.sample import SOURCE_SCHEMA
from zsic.storage.spread import Spread


def batch(start: int, stop: int) -> pa.Table:
    rows = [{"uri": str(number), "kind": "image", "size": number} for number in range(start, stop)]
    return pa.Table.from_pylist(rows, SOURCE_SCHEMA)


def draw(n: int, n_rows: int, step: int = 1_000) -> list[int]:
    spread = Spread(n)
    for start in range(0, n_rows, step):
        spread.add(batch(start, min(start + step, n_rows)))
    return [int(source.uri) for source in spread.sources]


@pytest.mark.parametrize("n", [1, 16, 64])
def test_so_many_are_drawn_from_all_over(n: int) -> None:
    drawn = draw(n, 20_000)
    assert len(set(drawn)) == n
    assert draw(n, 20_000) == drawn
    if n == 64:
        # The mean of 64 uniform draws is within four of its deviations.
        assert abs(sum(drawn) / 64 - 10_000) < 4 * 20_000 / 12**0.5 / 8


def test_few_are_drawn_whole() -> None:
    assert sorted(draw(64, 10, step=3)) == list(range(10))
    assert draw(64, 0) == []
