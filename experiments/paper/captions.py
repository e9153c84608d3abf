"""What the study's page says beside its numbers."""

# Title and caption of each figure.
CAPTIONS = {
    "systems": (
        "Every system in every world",
        "Dots are means, bars through them 95 % intervals (often smaller than the dot). Grey and "
        "gold lines are rankings that nobody trained.",
    ),
    "figure4a": ("Fig. 4a: the hidden size K", "UHMAN, natural distribution, 95 % intervals."),
    "figure4b": ("Fig. 4b: the embedding size d", "UHMAN, natural distribution, 95 % intervals."),
    "sample_size": (
        "How much data it takes",
        "The same test videos and the same vocabulary; a smaller share is part of a larger one.",
    ),
    "attention": (
        "Does it look at the right place?",
        "The simulated world knows which regions of which frames show which object. A tick is what "
        "looking everywhere alike would give.",
    ),
    "figure3": (
        "Fig. 3: the two hashtag distributions",
        "Balanced: the most used hashtags are taken from videos until they are as rare as others.",
    ),
}

GLOSSARY = (
    (
        "Settled",
        "The 95 % interval of the difference leaves 0 out, every world has the same sign, and the "
        "corrected p value is below 0.05. From natural to balanced the test clips differ, so the "
        "interval decides alone. d counts as flat where every interval lies within 5 % of the "
        "value at d = 32; the best K is chosen on validation clips.",
    ),
    (
        "±",
        "Half-width of the 95 % t interval: over worlds where there are three or more, else over "
        "seeds within the worlds that there are.",
    ),
    (
        "p",
        "Paired randomisation test over test videos: the sign of each video's difference, averaged "
        "over seeds, is flipped by lot 10,000 times. Two-sided, and corrected by Holm over the "
        "comparisons of a table or claim. It speaks of other videos, not of other training runs.",
    ),
    (
        "World",
        "Who tags what in a simulated world. Selection: the user's preference picks the object that is "
        "tagged. Additive: preference adds to content. Everything: users tag all that they see.",
    ),
    (
        "Recipe",
        "How all systems were trained. Paper: section 2.4 to the letter. Warp: the paper's "
        "optimiser with the rank weight that gives WARP its name. Plus: what reached the best "
        "validation score without changing the architecture. BL, UA and 3WM train for three times "
        "as many epochs as UHMAN. Learning rate, weight decay and history dropout are tuned on "
        "validation clips, six runs for every system; what is better by less than 2 % is left as "
        "it is. The paper's recipe is not tuned.",
    ),
    (
        "UHMAN(a), (b), (c)",
        "Ablations. (a): the mean over regions. (b): the mean over frames. (c), not in the paper: "
        "all users attend alike, so attention cannot follow a preference.",
    ),
    (
        "Oracle",
        "Ranks by the true probability of each hashtag. The observable oracle knows only what a "
        "system is shown, so it is the ceiling. Of the clip or of the user alone, and user plus "
        "clip: what can be reached without the other, or without the two interacting.",
    ),
    ("P@k, R@k, F1@k", "As in the paper: means over test videos, every hashtag ranked."),
    (
        "The paper's numbers",
        "Of 10,291 Musical.ly clips that were never published. Another data set: the order can be "
        "compared, the values cannot.",
    ),
)
