"""Views: what is derived from records, without running anything."""
