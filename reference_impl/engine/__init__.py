"""The torch engine: core's instance loop with real forwards, on the wall clock. Imports no Ray."""
