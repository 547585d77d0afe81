"""The node's gRPC edge: the only place that knows protobuf."""
