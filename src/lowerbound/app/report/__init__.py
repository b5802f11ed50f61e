"""Pictures and pages from numbers and arrays."""
