"""Runs in the Trace Event format, for Perfetto and chrome://tracing."""
