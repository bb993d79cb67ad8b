"""The secret that connection ids are made with, from one run to the next."""

import os
from typing import Any

import pytest

from pounce.supervisor.h3 import recall_secret


class Store:
    """A keeper, as far as memory goes."""

    def __init__(self) -> None:
        self.kept: dict[str, int] = {}

    def recall(self, name: str) -> int | None:
        return os.dup(self.kept[name]) if name in self.kept else None

    def remember(self, name: str, descriptor: int) -> None:
        if name in self.kept:
            os.close(self.kept[name])
        self.kept[name] = os.dup(descriptor)


@pytest.fixture
def store() -> Any:
    store = Store()
    yield store
    for descriptor in store.kept.values():
        os.close(descriptor)


def test_without_a_store_each_run_has_its_own() -> None:
    secrets = {recall_secret(None) for _ in range(3)}
    assert {len(secret) for secret in secrets} == {32}
    assert len(secrets) == 3


def test_it_outlives_a_restart(store: Any) -> None:
    first = recall_secret(store)
    assert [recall_secret(store) for _ in range(3)] == [first] * 3


def test_a_damaged_one_is_replaced(store: Any) -> None:
    first = recall_secret(store)
    os.ftruncate(next(iter(store.kept.values())), 5)
    second = recall_secret(store)
    assert second != first
    assert recall_secret(store) == second
