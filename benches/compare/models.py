"""Writes models of full size with random weights: the names, shapes and number types of the published files.

    python benches/compare/models.py FOLDER [sd15 controlnet ip_adapter vision]

FOLDER gets ComfyUI's sub-folders. Weights are drawn so that activations stay of order one: a matrix by 1/sqrt of what it
sums, norms one, biases zero. Needs numpy, torch and safetensors; sd15 takes 2 GB of disk.
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import save_file

KEYS = pathlib.Path(__file__).parents[2] / "tests/fixtures/keys"


def rows(path):
    """(section, name in the file, shape) of each line of a list of keys."""
    section = ""
    for line in path.read_text().splitlines():
        if line.startswith("#"):
            section = line[2:]
            continue
        columns = line.split("\t")
        shape = columns[-1]
        yield section, columns[0], [int(n) for n in shape.split(",")] if shape else []


def draw(name, shape, generator):
    if name.endswith("position_ids"):
        return torch.arange(shape[-1]).reshape(shape)
    if len(shape) < 2:
        # A norm's weight scales, every other vector is a bias.
        is_scale = name.endswith("weight")
        return torch.full(shape, 1.0 if is_scale else 0.0, dtype=torch.float16)
    fan = 1
    for n in shape[1:]:
        fan *= n
    scale = 0.02 if "embedding" in name else fan**-0.5
    return (torch.randn(shape, generator=generator) * scale).half()


def write(path, entries, metadata=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(1)
    tensors = {name: draw(name, shape, generator) for name, shape in entries}
    save_file(tensors, path, metadata=metadata)
    print(path, sum(t.numel() for t in tensors.values()), "weights")


def vision():
    """CLIP ViT-H/14 as transformers names it."""
    wide, inner, layers = 1280, 5120, 32
    yield "vision_model.embeddings.class_embedding", [wide]
    yield "vision_model.embeddings.patch_embedding.weight", [wide, 3, 14, 14]
    yield "vision_model.embeddings.position_embedding.weight", [257, wide]
    norms = ["pre_layrnorm", "post_layernorm"]
    for layer in range(layers):
        at = f"encoder.layers.{layer}"
        norms += [f"{at}.layer_norm1", f"{at}.layer_norm2"]
        for part in ["q_proj", "k_proj", "v_proj", "out_proj"]:
            yield f"vision_model.{at}.self_attn.{part}.weight", [wide, wide]
            yield f"vision_model.{at}.self_attn.{part}.bias", [wide]
        for part, shape in [("fc1", [inner, wide]), ("fc2", [wide, inner])]:
            yield f"vision_model.{at}.mlp.{part}.weight", shape
            yield f"vision_model.{at}.mlp.{part}.bias", shape[:1]
    for norm in norms:
        yield f"vision_model.{norm}.weight", [wide]
        yield f"vision_model.{norm}.bias", [wide]
    yield "visual_projection.weight", [1024, wide]


def main():
    folder = pathlib.Path(sys.argv[1])
    wanted = sys.argv[2:] or ["sd15"]
    if "sd15" in wanted:
        entries = [(name, shape) for _, name, shape in rows(KEYS / "sd15.tsv")]
        write(folder / "checkpoints/sd15-random.safetensors", entries)
    if "controlnet" in wanted:
        entries = [(name, shape) for _, name, shape in rows(KEYS / "controlnet_sd15.tsv")]
        write(folder / "controlnet/canny-random.safetensors", entries)
    if "ip_adapter" in wanted:
        entries = json.loads((KEYS / "ip_adapter.json").read_text())["sd15"].items()
        write(folder / "ipadapter/ip-adapter-random.safetensors", entries)
    if "vision" in wanted:
        write(folder / "clip_vision/vit-h-random.safetensors", vision())


main()
