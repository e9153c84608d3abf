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
    Q another slot of a positive

A video has one integer index in each of four tables:

    row     in the view (`View.video_ids`), in the order of the ids
    record  in the store of features (`FrameStore.video_ids`), in the order of the shards
    slot    in `VideoInput.codes_VFMC`: in its batch, or among the videos that are on the device
    truth   in the tables of a simulated dataset (`Truth.video_ids`)

An array is named after its values: `row_B` holds the view row of each example of a batch,
`record_V` the record of each view row, `slot_V` its slot and `truth_V` its row of the truth.
"""

__version__ = "0.1.0"
