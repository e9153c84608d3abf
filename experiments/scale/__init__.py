"""The cost of larger runs: more clips, hashtags and devices."""
