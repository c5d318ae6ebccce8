"""telflow's flows."""
