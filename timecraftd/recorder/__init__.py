"""Logs: reading, recovery, retention. A facade over the extension."""
