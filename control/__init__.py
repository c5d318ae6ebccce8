"""telflow's control."""
