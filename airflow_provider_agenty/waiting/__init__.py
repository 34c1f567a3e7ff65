"""Waiting for a job: one decision for workers, sensors and triggers."""
