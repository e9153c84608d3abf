"""Shows how a trained model treats its users, as a page and as numbers.

rates.py   differences between kinds of users in the hashtags that they get and use
swaps.py   the same clips with other users
space.py   nearest hashtags, and a map of all
study.py   computes and writes the numbers
page.py    the page
"""
