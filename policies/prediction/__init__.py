"""Expected output lengths: one policy, one file."""
