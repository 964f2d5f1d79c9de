"""Monitoring: whether what is served still is what the model was trained for."""
