"""The sensor that waits for a job."""
