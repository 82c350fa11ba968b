"""Running a network: its modules, what they give back, and derivatives between any two of them."""
