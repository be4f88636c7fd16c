"""A circuit as SVG. Knows no page."""
