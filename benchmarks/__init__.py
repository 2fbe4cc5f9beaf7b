"""Speed of the core against the ways that people use today; see README.md beside this file."""
