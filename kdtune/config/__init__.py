"""What a user may ask for: trial and sweep configurations, validated, with their canonical form and key."""
