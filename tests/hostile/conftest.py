from collections.abc import Iterator

import pytest
from hostile_parent import Child


@pytest.fixture(scope="session")
def child(tmp_path_factory) -> Iterator[Child]:
    """The process that reads hostile files; one for all tests of a worker, for it imports torch."""
    if not hasattr(__import__("os"), "fork"):
        pytest.skip("the reading process is bounded by POSIX resource limits")
    started = Child(tmp_path_factory.mktemp("hostile"))
    yield started
    started.close()
