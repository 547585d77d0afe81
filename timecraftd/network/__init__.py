"""The guests' network: what they may reach, and the event loop that dials, listens, resolves and does TLS for them."""
