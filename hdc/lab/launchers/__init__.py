"""Where the runs of a sweep go: joblib, Ray, Slurm; and the search with Optuna."""
