"""Pure decisions: the contract (`policies.api`), the registry and one file per policy. Standard library only."""
