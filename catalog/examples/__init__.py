"""Example catalogs, to read and to try the pipeline with."""
