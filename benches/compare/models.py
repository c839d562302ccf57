"""Models of full size with made weights, for comparisons of speed and memory where no published weights are at hand.

    python benches/compare/models.py FOLDER [sd15] [sdxl] [ip_adapter] [vit_h] [controlnet]

writes the named ones (all, if none is named) into ComfyUI's folders below FOLDER: names, shapes and number types are those of the published files, taken from the
key lists in tests/fixtures. Weights are random, f16, the same on every run, and scaled so that activations stay near 1 and the UNet's guess has the spread of noise:
a sampling runs through every layer with sane numbers, and draws nothing.

| name | file | size |
| --- | --- | --- |
| sd15 | checkpoints/sd15.safetensors | 2.1 GB |
| sdxl | checkpoints/sdxl.safetensors | 6.9 GB |
| ip_adapter | ipadapter/ip-adapter_sd15.safetensors | 45 MB |
| vit_h | clip_vision/vit-h.safetensors | 1.3 GB |
| controlnet | controlnet/control_sd15_canny.safetensors | 720 MB |

Needs numpy alone.
"""
import json, os, re, struct, sys, zlib

import numpy as np

FIXTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "fixtures")
# What is added to a residual stream is small, so that a deep stack of them stays near 1.
BRANCH_ENDS = re.compile(r"(out_layers\.3|to_out\.0|proj_out|ff\.net\.2|conv2|out_proj|fc2|c_proj|attn_1\.proj_out)\.weight$")
ZERO_CONVS = re.compile(r"(zero_convs|middle_block_out)\.")
TABLES = re.compile(r"(token_embedding|position_embedding|positional_embedding|class_embedding|\.latents)")


def key_list(file, *sections):
    """{name: shape} of the first column of sections of a key list; the parts of a fused tensor are one again."""
    found, section = {}, None
    for line in open(os.path.join(FIXTURES, file), encoding="utf-8"):
        line = line.rstrip("\n")
        if line.startswith("# "):
            section = line[2:]
        elif not sections or section in sections:
            columns = line.split("\t")
            name, shape = columns[0], [int(d) for d in columns[-1].split(",") if d]
            if "[" in name:
                name, shape = name.split("[")[0], [3 * shape[0]] + shape[1:]
            found[name] = shape
    return found


def vit_h():
    w, n = 1280, "vision_model."
    norms = {n + k: [w] for norm in ("pre_layrnorm", "post_layernorm") for k in (norm + ".weight", norm + ".bias")}
    found = {n + "embeddings.class_embedding": [w], n + "embeddings.patch_embedding.weight": [w, 3, 14, 14], n + "embeddings.position_embedding.weight": [257, w], **norms}
    for i in range(32):
        b = f"{n}encoder.layers.{i}."
        for k, shape in [(f"self_attn.{x}_proj", [w, w]) for x in ("q", "k", "v", "out")] + [("mlp.fc1", [4 * w, w]), ("mlp.fc2", [w, 4 * w]), ("layer_norm1", [w]), ("layer_norm2", [w])]:
            found[f"{b}{k}.weight"], found[f"{b}{k}.bias"] = shape, shape[:1]
    return {**found, "visual_projection.weight": [1024, w]}


def sdxl():
    vae = key_list("keys/sd15.tsv", "vae")
    return {**key_list("sdxl/keys.tsv", "unet", "text_encoder", "text_encoder_2"), "conditioner.embedders.1.model.logit_scale": [], **vae}


MODELS = {
    "sd15": ("checkpoints/sd15.safetensors", lambda: key_list("keys/sd15.tsv", "unet", "vae", "text_encoder")),
    "sdxl": ("checkpoints/sdxl.safetensors", sdxl),
    "ip_adapter": ("ipadapter/ip-adapter_sd15.safetensors", lambda: json.load(open(os.path.join(FIXTURES, "keys", "ip_adapter.json")))["sd15"]),
    "vit_h": ("clip_vision/vit-h.safetensors", vit_h),
    "controlnet": ("controlnet/control_sd15_canny.safetensors", lambda: key_list("keys/controlnet_sd15.tsv")),
}


def weights(name, shape):
    if name.endswith("position_ids"):
        return np.arange(shape[-1], dtype=np.int64).reshape(shape)
    random = np.random.default_rng(zlib.crc32(name.encode()))
    values = random.standard_normal(shape, dtype=np.float32)
    if len(shape) < 2 and not TABLES.search(name):
        values = 1 + 0.05 * values if name.endswith("weight") else 0.02 * values
    elif TABLES.search(name):
        values = 0.02 * values
    else:
        inputs = int(np.prod(shape[1:]))
        gain = 0.02 if ZERO_CONVS.search(name) else 0.25 if BRANCH_ENDS.search(name) else 1.7 if name.endswith("out.2.weight") else 1.0
        values *= np.float32(gain / inputs**0.5)
    return values.astype(np.float16)


def write(path, tensors):
    end, header = 0, {"__metadata__": {"format": "pt"}}
    for name, shape in tensors.items():
        kind, size = ("I64", 8) if name.endswith("position_ids") else ("F16", 2)
        start, end = end, end + size * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".part", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in tensors.items():
            weights(name, shape).tofile(file)
    os.replace(path + ".part", path)
    print(f"{path}: {len(tensors)} tensors, {os.path.getsize(path) / 1e9:.2f} GB", flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 2 or any(name not in MODELS for name in sys.argv[2:]):
        sys.exit(__doc__)
    for name in sys.argv[2:] or MODELS:
        file, tensors = MODELS[name]
        write(os.path.join(sys.argv[1], file), tensors())
