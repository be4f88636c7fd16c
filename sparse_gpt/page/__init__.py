"""The page that runs a model: one file with weights, circuit and the JavaScript that computes with them."""

from sparse_gpt.page.gallery import build_gallery
from sparse_gpt.page.page import build_pages
from sparse_gpt.page.site import build_site

__all__ = ["build_gallery", "build_pages", "build_site"]
