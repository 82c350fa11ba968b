"""Text of results."""

from __future__ import annotations


def abridged(text: str, lines: int = 6) -> str:
    r"""The text in so many lines: the first ones, and how many follow.

    Args:
        text: the whole.
        lines: most lines.

    Example:
        >>> print(abridged("\n".join("abcd"), 3))
        a
        b
          … and 2 more
    """
    parts = text.splitlines()
    return text if len(parts) <= lines else "\n".join([*parts[: lines - 1], f"  … and {len(parts) - lines + 1} more"])
