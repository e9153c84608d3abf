"""Versions of the rules by which tables are read; old runs go on under the rules they began with.

The version stands in the view of a run:

1. Hashtags are divided at spaces and '#', attributes are taken as written, a bad age drops the user
   and a bad time the video.
2. Lists, spellings and attributes are read as `hashtags`, `attributes` and `checks` say.
"""

CURRENT = 2
