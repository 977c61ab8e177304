"""Insight into finished runs: the story of one request, its other ends, traces for a viewer, differences."""
