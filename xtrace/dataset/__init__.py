"""Datasets: the tables of traces as Parquet, a folder a trace, for every tool that reads that (docs/dataset.md)."""
