"""The language of an xentrace file: Construct declarations and nothing else."""
