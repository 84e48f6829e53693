"""Distillery on Ray and MLflow: experiment files, sweeps, tracking and comparison around the core in ``distill``."""
