"""The node's processes: workers that host them, room for them, restarts, and what outlives the control process."""
