"""The state directory: content-addressed objects, the catalogue of processes, their directories and locks."""
