"""The quality report: density, fidelity, duplicates, coverage; and filters built on its figures."""
