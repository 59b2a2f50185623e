"""Nouns and rules of the workbench: pure values, standard library only, no I/O."""
