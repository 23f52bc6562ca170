"""Measuring: runs recorded in MLflow, sweeps of trials in fresh processes, and studies of them."""
