"""How a semi-PD instance's two lanes share its compute: one policy, one file."""
