"""MLflow: a view of the TrialStore, written by the driver alone."""
