"""From a trained model to the smallest circuit: mask search, populations, ranking, minimality."""
