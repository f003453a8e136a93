"""Holds README and docs to the code: generated parts, links, and every command run as a reader would run it."""
