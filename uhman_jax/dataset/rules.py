"""Versions of the rules by which tables are read. A run keeps the version that it began with.

The view of a run stores the version:

1. Spaces and '#' separate hashtags, attributes are used as written, a bad age drops the user, and a
   bad time drops the video.
2. Lists, spellings and attributes are read as `hashtags`, `attributes` and `field_checks` describe.
"""

CURRENT = 2
