"""How many instances of each role there are: one policy, one file."""
