"""Workers in several processes, on one host or many, and the supervisor that keeps them running."""
