"""The interception authority and the leaves it signs."""
