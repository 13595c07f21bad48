"""The networked process on the box."""
