"""Products of spaces: independent blocks of directions, Künneth's formula, the cup product."""
