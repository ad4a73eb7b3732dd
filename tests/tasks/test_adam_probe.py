import math

import numpy as np
import pytest
import torch

from clipeval.tasks import adam_probe, linear_probe
from clipeval.tasks.accuracy import Labelled


def blobs(n, seed, classes=(-4, 8, 15, 16, 23, 42), noise=0.6):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(len(classes), 10))
    index = rng.integers(0, len(classes), n)
    x = centres[index] + rng.normal(size=(n, 10)) * noise
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return Labelled(x, np.array(classes)[index], [str(row) for row in range(n)])


@pytest.mark.parametrize("optimizer_class", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize(("n", "learning_rate", "epochs"), [(531, 0.1, 3), (100, 0.01, 4), (512, 0.001, 2)])
def test_training_is_torchs(n, learning_rate, epochs, optimizer_class):
    data = blobs(n, n)
    columns = np.unique(data.labels, return_inverse=True)[1]
    ours = adam_probe.train_softmax(data.embeddings, columns, learning_rate, epochs, seed=7)

    generator = np.random.default_rng(7)  # the same draws: initial values, then one order per epoch
    initial = torch.tensor(generator.uniform(-1 / math.sqrt(10), 1 / math.sqrt(10), (6, 11)), dtype=torch.float32)
    layer = torch.nn.Linear(10, 6)
    layer.load_state_dict({"weight": initial[:, :-1], "bias": initial[:, -1]})
    optimizer = optimizer_class(layer.parameters(), lr=learning_rate, weight_decay=0)
    x, y = torch.tensor(data.embeddings), torch.tensor(columns)
    steps = epochs * math.ceil(n / 256)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for rows in torch.tensor(generator.permutation(n)).split(256):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(layer(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    theirs = torch.cat([layer.weight, layer.bias[:, None]], dim=1).detach().numpy()
    assert np.abs(ours - theirs).max() <= 2e-4 * max(1, np.abs(theirs).max())


def test_the_best_of_the_grid_on_test_is_taken_and_said():
    train, test = blobs(61, 1), blobs(97, 2)
    result = adam_probe.train_best(train, test, seed=0)
    grid = result.notes["grid"]
    assert [(rate, epochs) for rate, epochs, _ in grid] == [
        (rate, epochs) for rate in (0.1, 0.01, 0.001) for epochs in (10, 20, 40)
    ]
    best = max(acc1 for _, _, acc1 in grid)
    assert result.metrics[0].value == best
    assert [result.notes["learning_rate"], result.notes["epochs"], best] == next(p for p in grid if p[2] == best)
    assert result.notes["selected_on"] == "test"
    assert result.notes["protocol"] == "cherti2023"
    weights = adam_probe.train_softmax(
        train.embeddings,
        np.unique(train.labels, return_inverse=True)[1],
        result.notes["learning_rate"],
        result.notes["epochs"],
        seed=0,
    )
    predicted = np.unique(train.labels)[(test.embeddings @ weights[:, :-1].T + weights[:, -1]).argmax(axis=1)]
    assert (predicted == result.samples["prediction"]).all()


def test_the_probe_reaches_it_by_its_protocol():
    train, test = blobs(61, 1), blobs(97, 2)
    result = linear_probe.evaluate(train, test, val=blobs(30, 3), seed=0, protocol="cherti2023")
    assert result.notes == adam_probe.train_best(train, test, seed=0).notes
    one, other = (adam_probe.train_softmax(train.embeddings, np.arange(61) % 6, 0.1, 2, seed) for seed in (0, 1))
    assert (one != other).any()
