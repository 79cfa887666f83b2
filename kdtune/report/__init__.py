"""Answers: tables made from the store."""
