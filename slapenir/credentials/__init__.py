"""Real secrets, their placeholders, and the surfaces where one becomes the other."""
