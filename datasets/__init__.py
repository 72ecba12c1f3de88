"""Data sets: readers, encoders, downloads, batches."""
