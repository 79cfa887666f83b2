"""What `import kdtune` offers: stores, sweeps, trials and training, for notebooks and other programs."""
