"""Which instance serves a request: one policy, one file."""
