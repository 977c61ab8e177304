"""Contract suites and fake views behind `policies.testing`."""
