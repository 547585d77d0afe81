"""Generated from proto/timecraft/v1 by `make protos`."""
