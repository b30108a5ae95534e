"""Five minutes on a laptop: a planner learns what to unmask, and decoding gets faster."""
