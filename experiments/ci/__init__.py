"""A comparison for a CI: what its test view and its comments read."""

from experiments.ci.junit import junit_xml
from experiments.ci.markdown import markdown_text

__all__ = ["junit_xml", "markdown_text"]
