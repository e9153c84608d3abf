"""Shows how a trained model treats its users, as one page and as numbers.

rates.py   who gets which hashtag more often than others, and who uses it
swaps.py   the same clips with other users
space.py   nearest hashtags, and a map of all
study.py   puts the numbers together, and writes them
page.py    the page
"""
