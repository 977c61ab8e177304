"""What one lane computes in its next iteration: one policy, one file."""
