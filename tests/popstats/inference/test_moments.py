import numpy as np
import pytest

from popstats.inference.model import KEPT_RANGE, design_matrix
from popstats.inference.moments import BLOCK, second_moments


@pytest.mark.parametrize("techniques", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n", [BLOCK, BLOCK + 1, 2 * BLOCK + 1237])
def test_moments_equal_the_product_of_the_whole_design(n, weighted, techniques):
    rng = np.random.default_rng(n)
    unit, distance = KEPT_RANGE * (2.0 * rng.beta(2, 5, n) - 1.0), rng.uniform(-1, 1, n)
    technique = (rng.integers(0, techniques, n)[:, None] == np.arange(1, techniques)) - 0.4
    drop, weight = rng.normal(size=n), rng.uniform(0.2, 3.0, n) if weighted else np.ones(n)
    z = np.column_stack([design_matrix(unit, distance, technique), drop])
    expected = (z * weight[:, None]).T @ z
    np.testing.assert_allclose(
        second_moments(unit, distance, technique, drop, weight), expected, rtol=0, atol=1e-13 * n
    )
