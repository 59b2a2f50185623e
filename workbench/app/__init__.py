"""The only wiring: ports meet their adapters here."""
