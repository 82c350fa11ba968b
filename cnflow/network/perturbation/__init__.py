"""How far coordinates move when the parameters change and the function does not."""
