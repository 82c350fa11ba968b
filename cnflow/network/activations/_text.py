"""Text of results."""

from __future__ import annotations

LINES = 6
"""Most lines of a repr."""


class Abridged:
    r"""A result whose repr is the beginning of its text.

    Example:
        >>> class Letters(Abridged):
        ...     def __str__(self):
        ...         return "\n".join("abcdefgh")
        >>> Letters()
        a
        b
        c
        d
        e
          … and 3 more
    """

    def __repr__(self) -> str:
        """The first lines, and how many follow."""
        lines = str(self).splitlines()
        most = len(lines) if len(lines) <= LINES else LINES - 1
        return "\n".join([*lines[:most], *([f"  … and {len(lines) - most} more"] * (len(lines) > most))])
