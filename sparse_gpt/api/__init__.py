"""What `import sparse_gpt as sg` offers; sparse_gpt/__init__.py lists it."""
