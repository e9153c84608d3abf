"""Holds the numbers of the paper as printed.

Liu, Xie, Zou and Chen, "User conditional hashtag recommendation for micro-videos" (UHMAN), Tables 1
to 3. They were measured on 10,291 micro-videos from Musical.ly that were never published, so no
test compares them with ours. The paper does not print the values of Fig. 4.
"""

METRICS = ("P@10", "P@50", "R@10", "R@50", "F1@10", "F1@50")
K = D = 32  # chosen in section 3.3
_TEXT = """
1 natural  BL       0.0650 0.0227 0.1658 0.4255 0.0934 0.0431
1 natural  UA       0.0733 0.0301 0.1823 0.4389 0.1046 0.0563
1 natural  3WM      0.0796 0.0312 0.1946 0.4468 0.113  0.0583
1 natural  UHMAN    0.0849 0.0409 0.2110 0.4517 0.1210 0.075
2 balanced BL       0.0371 0.0206 0.1549 0.4333 0.0599 0.0394
2 balanced UA       0.0389 0.0221 0.1607 0.4604 0.0626 0.0421
2 balanced 3WM      0.0451 0.0237 0.1898 0.4917 0.0729 0.0453
2 balanced UHMAN    0.0507 0.0250 0.2088 0.5186 0.0816 0.0477
3 natural  UHMAN(a) 0.0736 -      0.1973 -      0.1072 -
3 natural  UHMAN(b) 0.0822 -      0.2031 -      0.1170 -
3 natural  UHMAN    0.0849 -      0.2110 -      0.1210 -
"""
_LINES = [line.split() for line in _TEXT.splitlines() if line]
ROWS = {  # by table, view and system: the text of each metric, with the printed decimals
    (int(table), view, system): {m: x for m, x in zip(METRICS, texts, strict=True) if x != "-"}
    for table, view, system, *texts in _LINES
}


def value(view: str, system: str, metric: str) -> float | None:
    """Returns a printed number, or None if the paper has none.

    >>> value("balanced", "UHMAN", "P@10"), value("natural", "UHMAN(a)", "P@50")
    (0.0507, None)
    """
    text = printed(view, system, metric)
    return float(text) if text else None


def printed(view: str, system: str, metric: str) -> str:
    """Returns a number as the paper prints it, or "" if it has none.

    >>> printed("natural", "3WM", "F1@10")
    '0.113'
    """
    rows = [row for (_, *where), row in ROWS.items() if where == [view, system]]
    return next((row[metric] for row in rows if metric in row), "")
