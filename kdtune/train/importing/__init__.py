"""Weights from elsewhere as trials of a store."""
