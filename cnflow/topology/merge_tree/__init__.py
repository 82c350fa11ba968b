"""Modes, the saddles between them, and the tree in which they merge."""
