"""telflow's connectors."""
