"""Reports, results and tables from the store."""
