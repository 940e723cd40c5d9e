"""What a timeline of a trace shows, as plain data: tracks, slices, arrows and counters."""
