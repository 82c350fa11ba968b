"""How few numbers the map between two layers passes through."""
