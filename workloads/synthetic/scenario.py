"""genai-bench's traffic scenarios: prompt and output lengths in one short text.

``D(100,1000)``: fixed prompt and output. ``N(480,240)/(300,150)``: normal, mean and standard deviation of each.
``U(50,100)/(200,250)``: uniform, least and most of each. Lengths are whole and at least 1; a normal draw is rounded,
where genai-bench cuts its fraction off. Source: github.com/sgl-project/genai-bench.
"""

from __future__ import annotations

import re

from workloads.errors import TraceError, shown
from workloads.synthetic.lengths import Fixed, Lengths, Normal, Uniform

FORMS = "D(in,out), N(mean,sd)/(mean,sd), U(least,most)/(least,most) with whole numbers"
_NUMBER = r"\s*(\d{1,10})\s*"
_PAIR = rf"\({_NUMBER},{_NUMBER}\)"
_FIXED = re.compile(rf"D{_PAIR}", re.ASCII)
_TWO = re.compile(rf"([NU]){_PAIR}/{_PAIR}", re.ASCII)


def parse(text: object) -> tuple[Lengths, Lengths]:
    """Prompt and output lengths of a scenario. Raises TraceError that shows the forms."""
    if isinstance(text, str):
        fixed = _FIXED.fullmatch(text.strip())
        if fixed:
            return Fixed(int(fixed[1])), Fixed(int(fixed[2]))
        two = _TWO.fullmatch(text.strip())
        if two and two[1] == "N":
            return Normal(int(two[2]), int(two[3])), Normal(int(two[4]), int(two[5]))
        if two:
            return Uniform(int(two[2]), int(two[3])), Uniform(int(two[4]), int(two[5]))
    raise TraceError(f"scenario: {shown(text)} (allowed: {FORMS})")
