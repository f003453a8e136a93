"""What one can do with Refract, from Python."""
