"""What a run leaves behind, and what may be read of it: plain values, settings, nothing that runs."""
