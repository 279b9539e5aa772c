"""Four ranks that the tests of a worker share."""

from collections.abc import Iterator

import pytest

from tests.parallel.ranks import Ranks


@pytest.fixture(scope="session")
def ranks() -> Iterator[Ranks]:
    group = Ranks(4)
    yield group
    group.stop()
