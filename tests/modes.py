"""Tests that hold for workers of either kind."""

import pytest

MODES = ("process", "thread")
both_modes = pytest.mark.parametrize("mode", MODES)
