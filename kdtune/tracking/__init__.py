"""MLflow, a view of the store that only the driver writes."""
