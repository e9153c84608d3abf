"""The mean feature of a clip, gated by the user, and a logistic loss; not in the paper.

    python -m uhman_jax.main --config=configs/gated_mean.py --config.data.root=FOLDER

It has no attention, so it is for clips that show one thing, and trains in seconds. On pictures with
their artists' keywords (experiments/real_tags) it is the best single system so far. Without
--config.data.root it trains on the clips of configs/natural.py, where attention is better.
"""

from configs import natural
from uhman_jax.config import Config, Loss, ModelName, Optimiser


def get_config() -> Config:
    """Returns the data of configs/natural.py with this model and recipe."""
    config = natural.get_config()
    config.name = "gated_mean"
    recipe(config)
    return config


def recipe(config: Config) -> None:
    """Sets the model, the logistic loss with a bias per hashtag, AdamW and early stopping."""
    model, train = config.model, config.train
    model.name = ModelName.GATED_MEAN
    model.hidden_size, model.embedding_size = 256, 128
    model.unit_length, model.bias = False, True
    model.dropout, model.history_sampling = 0.3, True
    config.loss.name, config.loss.temperature = Loss.LOGISTIC, 1.0
    train.optimiser, train.learning_rate, train.weight_decay = Optimiser.ADAMW, 0.002, 0.1
    train.user_rate = train.hashtag_rate = 1.0
    train.decay_at, train.clip_norm = (), 0.0
    train.batch_size, train.num_epochs, train.stop_after = 64, 40, 8
    config.evaluate.select_by = "NDCG@10"
