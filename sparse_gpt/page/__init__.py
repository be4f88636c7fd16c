"""The page that runs a model: one file with weights, circuit and the JavaScript that computes with them."""
