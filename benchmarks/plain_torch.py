"""Run what torch users write, for `bench.py extract --peers`.

    python benchmarks/plain_torch.py FOLDER --out FEATURES.npy --base vgg16 --size 224 [--bfloat16] [--loaders N]

ImageFolder and DataLoader, the same network from torchvision with random weights (this is about time), channels last,
`inference_mode`; with --bfloat16 under autocast. Global average of the last convolutional layer, as on the other sides.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch
import torchvision


def network(base: str) -> torch.nn.Module:
    """The convolutional part, and an average over its last maps."""
    models = torchvision.models
    if base == "inceptionv3":
        model = models.inception_v3(weights=None, aux_logits=False, init_weights=False)
        model.dropout, model.fc = torch.nn.Identity(), torch.nn.Identity()
        return model
    builder = {"vgg16": models.vgg16, "mobilenetv2": models.mobilenet_v2, "squeezenet": models.squeezenet1_1}
    features = builder[base](weights=None).features
    return torch.nn.Sequential(features, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--out", required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--loaders", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    given = parser.parse_args()
    started = time.perf_counter()
    transforms = torchvision.transforms
    usual = transforms.Compose(
        [
            transforms.Resize((given.size, given.size)),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    images = torchvision.datasets.ImageFolder(given.folder, usual)
    loader = torch.utils.data.DataLoader(images, given.batch, num_workers=given.loaders)
    model = network(given.base).eval().to(memory_format=torch.channels_last)
    rows = []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=given.bfloat16):
        for pixels, _ in loader:
            rows.append(model(pixels.to(memory_format=torch.channels_last)).float().numpy())
    found = np.concatenate(rows)
    np.save(given.out, found)
    print(json.dumps({"images": len(found), "seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
