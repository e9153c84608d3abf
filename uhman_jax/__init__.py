"""UHMAN in JAX: given a short video and who posts it, rank the hashtags they would attach.

Array names carry their axes, one capital per axis, outermost first (`frames_BFMC`):

    B example in the batch            P slot of a positive hashtag
    F sampled frame (n_f)             N negative sample
    M image region (M = 64)           H attention head
    C raw feature channel (2048)      S seed of a population
    K hidden width (K)                U user
    D final embedding space (d)       V video of a split
    T hashtag of the vocabulary (T)   A attribute value
    R slot of a history hashtag       O object in a simulated clip
    W feature of one head (K / H)     X item that attention pools (M or F)
    Q another slot of a positive      Z draw of a bootstrap

A slot of the axes P, Q and R may be padding. A video has an integer index in each of four tables:

    row     in the view (`View.video_ids`), sorted by video id
    record  in the feature store (`FrameStore.video_ids`), in shard order
    slot    in `VideoInput.codes_VFMC`, the codes of a batch or of all videos on the device
    truth   in the ground truth of a simulated dataset (`Truth.video_ids`)

An array is named after its values: `row_B` holds the view row of each example of a batch,
`record_V` the record of each view row, `slot_V` its slot and `truth_V` its index in the truth.
"""

__version__ = "0.1.0"
