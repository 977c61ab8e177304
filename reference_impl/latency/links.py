"""Links between instances, and how long a KV transfer takes."""

from __future__ import annotations

from dataclasses import dataclass

from reference_impl.latency.errors import ProfileError


@dataclass(frozen=True)
class LinkKind:
    """A point-to-point link, one direction; data-sheet bandwidth, so a real transfer is slower."""

    name: str
    bytes_per_s: float
    latency_s: float
    source: str

    def transfer_s(self, payload_bytes: float) -> float:
        """Seconds to move ``payload_bytes``, the start-up latency included."""
        return self.latency_s + payload_bytes / self.bytes_per_s


_LATENCY = "latency assumed"
LINKS = {
    link.name: link
    for link in (
        LinkKind("nvlink3", 300e9, 10e-6, f"A100 data sheet, 600 GB/s in both directions; {_LATENCY}"),
        LinkKind("nvlink", 450e9, 10e-6, f"NVLink 4, H100 data sheet, 900 GB/s in both directions; {_LATENCY}"),
        LinkKind("pcie4", 31.5e9, 15e-6, f"PCIe 4.0 x16; {_LATENCY}"),
        LinkKind("pcie", 63e9, 15e-6, f"PCIe 5.0 x16; {_LATENCY}"),
        LinkKind("roce-100g", 12.5e9, 50e-6, f"100 Gbit/s; {_LATENCY}"),
        LinkKind("roce-200g", 25e9, 50e-6, f"200 Gbit/s; {_LATENCY}"),
        LinkKind("ib-400g", 50e9, 30e-6, f"400 Gbit/s InfiniBand; {_LATENCY}"),
    )
}


def link(name: str) -> LinkKind:
    """The named link (any case). Raises :class:`ProfileError` with the choices for an unknown name."""
    found = LINKS.get(name.lower())
    if found is None:
        raise ProfileError(f"unknown link {name!r}; choose one of {', '.join(LINKS)}")
    return found
