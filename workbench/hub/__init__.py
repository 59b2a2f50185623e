"""What a hub does with a push: policy, planning, worker, run records."""
