"""Where trials run: the Ray of this machine, its folder, its doors."""
