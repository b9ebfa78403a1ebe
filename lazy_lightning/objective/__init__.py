"""What is minimised: losses, centering, the full-batch objective, models trained for comparison, metrics."""
