"""Hosts of policies: the simulator now, a live deployment later. Imports `policies` and `workloads` only."""

import os

import policies
import workloads

for _package in (policies, workloads):
    _found = os.path.dirname(_package.__file__ or next(iter(_package.__path__)))
    if os.path.dirname(_found) != os.path.dirname(os.path.dirname(__file__)):
        raise ImportError(f"{_found} hides semiflow's own {_package.__name__!r}; set PYTHONSAFEPATH=1 or rename it")
