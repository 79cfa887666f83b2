"""One trial: PCL+KD training, evaluation, checkpoints and teacher targets. Runs without Ray, Optuna and MLflow."""
