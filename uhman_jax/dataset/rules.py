"""Versions of the rules for reading tables. A view stores its version, so a run keeps its rules.

1. Spaces and '#' separate hashtags, attributes are used as written, a bad age drops the user, and a
   bad time drops the video.
2. The rules in the docstrings of `hashtags`, `attributes` and `field_checks`.
3. Also the column `group` of videos.csv. A view without groups has version 2, as before.
"""

CURRENT = 3  # version for new runs
