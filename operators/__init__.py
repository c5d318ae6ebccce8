"""telflow's operators."""
