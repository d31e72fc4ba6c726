"""Near names: known names that an unknown one may have been meant as."""

from __future__ import annotations


def unknown_name(name: str, known: tuple[str, ...], cutoff: float = 0.6) -> str:
    """Returns `; did you mean X?` for a name close to a known one, else nothing."""
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1, cutoff=cutoff)
    return f"; did you mean {near[0]}?" if near else ""
