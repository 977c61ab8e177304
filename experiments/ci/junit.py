"""JUnit XML: one test case for each cell of traffic, policy and gated metric; a regression is a failure."""

from __future__ import annotations

import re
from collections.abc import Collection
from xml.etree import ElementTree as Xml

from experiments.compare import Comparison, Judgement, cell_name, describe

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, not even escaped."""


def junit_xml(comparison: Comparison, regressions: Collection[Judgement]) -> str:
    """The document; ``regressions`` is what ``experiments.compare.gate`` found."""
    watched = [judgement for judgement in comparison.judgements if judgement.metric in comparison.config.gate_metrics]
    counts = {"tests": str(len(watched)), "failures": str(len(regressions)), "errors": "0", "skipped": "0"}
    suites = Xml.Element("testsuites", {"name": "semiflow compare", **counts})
    suite = Xml.SubElement(suites, "testsuite", {"name": _text(comparison.config.title), **counts})
    for judgement in watched:
        _case(suite, judgement, failed=judgement in regressions)
    Xml.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(suites, encoding="unicode") + "\n"


def _case(suite: Xml.Element, judgement: Judgement, *, failed: bool) -> None:
    name = f"{judgement.variant} against {judgement.baseline}, {cell_name(judgement)}"
    case = Xml.SubElement(suite, "testcase", {"classname": f"semiflow.{judgement.metric}", "name": _text(name)})
    told = _text(f"{judgement.verdict}: {describe(judgement)}; smallest effect that counts: {judgement.min_effect:.4g}")
    if failed:
        kind = "regression" if judgement.difference is not None else "cannot be judged"
        Xml.SubElement(case, "failure", {"message": told, "type": kind}).text = told
    else:
        Xml.SubElement(case, "system-out").text = told


def _text(text: str) -> str:
    return _FORBIDDEN.sub("\ufffd", text)
