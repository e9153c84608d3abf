"""What happens when a run grows: clips, hashtags, devices."""
