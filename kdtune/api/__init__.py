"""The names of `import kdtune`: stores, sweeps, trials and training, for notebooks and other programs."""
