"""Read runs, write tables and figures."""
