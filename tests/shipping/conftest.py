"""Fixtures of the tests of shipping."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.shipping.places import s3_server


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of clients of a local S3 server."""
    with s3_server(tmp_path_factory.mktemp("s3")) as environment:
        yield environment
