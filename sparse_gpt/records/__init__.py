"""What the JSON files of a workdir hold, and reading them."""
