"""S6: trains a decoder, so that its bytes depend on shards, parameters and the class of machine alone."""
