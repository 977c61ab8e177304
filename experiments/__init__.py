"""Composition: configurations, the command line, comparisons and reports. The only package that imports all others."""
