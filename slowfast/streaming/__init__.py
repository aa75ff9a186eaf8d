"""Classifying streams of events as they come."""
