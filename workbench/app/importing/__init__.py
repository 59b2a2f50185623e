"""``import FILE``: what someone else made becomes an artifact, with licence and provenance, or is refused."""
