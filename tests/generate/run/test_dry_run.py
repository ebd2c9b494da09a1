"""What a dry run reports on recipes that whole filters keep off their target."""

import numpy as np
import pytest

from generate.run.dry_run import _off_target


@pytest.mark.parametrize(("axis", "missed"), [("macs", 1), ("params", 2), ("both", 2)])
def test_counts_the_recipes_that_whole_filters_keep_off_the_target(axis, missed):
    macs, params = np.array([0.50, 0.504, 0.51]), np.array([0.50, 0.52, 0.48])
    assert _off_target(axis, 0.5, macs, params) == missed
