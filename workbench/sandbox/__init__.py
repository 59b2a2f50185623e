"""Running code we did not write, under bubblewrap."""
