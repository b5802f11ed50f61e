"""The distribution tree, and the densities that torch lacks, one a file."""
