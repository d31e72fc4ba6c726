"""Every error that can be raised is a name of `beaver`, and stands in the reference."""

from __future__ import annotations

from pathlib import Path

import pytest

import beaver
from beaver import errors

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "python-api.md"
KINDS = [
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.BeaverError)
]


@pytest.mark.parametrize("name", KINDS)
def test_an_error_is_exported_and_documented(name):
    assert getattr(beaver, name) is getattr(errors, name)
    assert name in beaver.__all__
    assert f"`{name}`" in REFERENCE.read_text().partition("## Errors")[2] or name == "BeaverError"


def test_no_error_that_users_meet_is_made_elsewhere():
    """What an answer brings over the socket is a class of `errors`: others would not arrive."""
    from beaver import client

    assert client.NoServer is errors.NoServer
