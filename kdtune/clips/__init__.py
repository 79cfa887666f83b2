"""From video files to the clip tuples that a trial trains on."""
