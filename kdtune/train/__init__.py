"""One trial: PCL+KD training, evaluation, checkpoints, and a teacher's targets. Knows of no Ray and no MLflow."""
