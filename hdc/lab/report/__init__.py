"""Records to tables, figures and verdicts. No JAX."""
