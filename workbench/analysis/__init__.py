"""The paper's reading of experiment results: claims, tables, curves, comparisons."""
