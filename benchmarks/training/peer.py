"""pythae's side of the comparison: run by the peer's own Python; prints one JSON line."""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time

import numpy as np
import torch
from pythae.data.datasets import BaseDataset
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import nn


class MLPEncoder(BaseEncoder):
    """784-512-512-20 with ReLU."""

    def __init__(self, shape, latent):
        BaseEncoder.__init__(self)
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(int(np.prod(shape)), 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU()
        )
        self.mu, self.logvar = nn.Linear(512, latent), nn.Linear(512, latent)

    def forward(self, x):
        h = self.body(x)
        return ModelOutput(embedding=self.mu(h), log_covariance=self.logvar(h))


class MLPDecoder(BaseDecoder):
    """20-512-512-784 with ReLU and a sigmoid, as pythae's cross-entropy wants it."""

    def __init__(self, shape, latent):
        BaseDecoder.__init__(self)
        self.shape = shape
        self.body = nn.Sequential(
            nn.Linear(latent, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, int(np.prod(shape)))
        )

    def forward(self, z):
        return ModelOutput(reconstruction=torch.sigmoid(self.body(z)).reshape(-1, *self.shape))


class ConvolutionalEncoder(BaseEncoder):
    """Three strided 3x3 convolutions (32, 64, 128)."""

    def __init__(self, shape, latent):
        BaseEncoder.__init__(self)
        layers = []
        for before, after in zip((shape[0], 32, 64), (32, 64, 128), strict=True):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.mu, self.logvar = nn.Linear(128 * 16, latent), nn.Linear(128 * 16, latent)

    def forward(self, x):
        h = self.body(x)
        return ModelOutput(embedding=self.mu(h), log_covariance=self.logvar(h))


class ConvolutionalDecoder(BaseDecoder):
    """A linear map to 4x4, then nearest-neighbour doubling and 3x3 convolutions (128, 64, 32)."""

    def __init__(self, shape, latent):
        BaseDecoder.__init__(self)
        self.stem = nn.Linear(latent, 128 * 16)
        layers = []
        for before, after in zip((128, 64, 32), (64, 32, shape[0]), strict=True):
            layers += [nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(before, after, 3, padding=1)]
        self.body = nn.Sequential(*layers)

    def forward(self, z):
        return ModelOutput(reconstruction=torch.sigmoid(self.body(self.stem(z).reshape(-1, 128, 4, 4))))


NETWORKS = {"mlp": (MLPEncoder, MLPDecoder), "convolutional": (ConvolutionalEncoder, ConvolutionalDecoder)}


def main(data: str, network: str, epochs: int) -> None:
    """Train on the arrays of a file and print images per second and the ELBO of the test rows."""
    logging.disable(logging.CRITICAL)
    arrays = np.load(data, allow_pickle=False)
    train, test = torch.from_numpy(arrays["train"]).float(), torch.from_numpy(arrays["test"]).float()
    shape, latent = tuple(train.shape[1:]), 20
    encoder, decoder = NETWORKS[network]
    torch.manual_seed(0)
    config = VAEConfig(input_dim=shape, latent_dim=latent, reconstruction_loss="bce")
    model = VAE(config, encoder(shape, latent), decoder(shape, latent))
    settings = BaseTrainerConfig(
        output_dir=tempfile.mkdtemp(),
        num_epochs=epochs,
        learning_rate=1e-3,
        per_device_train_batch_size=128,
        optimizer_cls="Adam",
        no_cuda=True,
        seed=0,
    )
    trainer = BaseTrainer(model, BaseDataset(train, torch.ones(len(train))), training_config=settings)
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    model.eval()
    with torch.no_grad():
        batches = test.split(500)
        losses = [model(BaseDataset(b, torch.ones(len(b)))[:]).loss.item() * len(b) for b in batches]
    print(json.dumps({"images_per_second": len(train) * epochs / seconds, "elbo_nats": -sum(losses) / len(test)}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
