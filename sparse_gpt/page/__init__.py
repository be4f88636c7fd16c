"""The page that runs a model: one file with weights, circuit and the JavaScript that computes with them."""

from sparse_gpt.page.gallery import build_gallery
from sparse_gpt.page.page import build_pages
from sparse_gpt.page.twin import shared_prompts

__all__ = ["build_gallery", "build_pages", "shared_prompts"]
