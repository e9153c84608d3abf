"""The mean feature of a clip, gated by the user, and a logistic loss; not in the paper.

    python -m uhman_jax.main --config=configs/gated_mean.py --config.data.root=FOLDER

It has no attention and trains in a minute. On validation clips of Open Clip Art (2,750 training
clips, three splits, min_count 5) the ensemble of three seeds has P@10 0.237 and NDCG@10 0.770. It
needs thousands of clips: on the 576 of configs/natural.py its ensemble has P@10 0.274 on test,
where ridge has 0.293 and UHMAN's ensemble 0.311.
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
