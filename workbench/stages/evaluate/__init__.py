"""S7 evaluate: how well a model predicts and fills in source that it has not seen."""
