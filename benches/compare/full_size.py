"""Whole pictures at full size: flow beside diffusers on the same made weights, and what flow needs in memory.

    python benches/compare/models.py MODELS
    cargo build --release
    python benches/compare/full_size.py MODELS [--precision f32] [--ram 5GiB] [--only text LoRA SDXL "look and outline"]

Draws 256x256 with 4 steps of Euler's method: by SD1.5 from a text, with IP-Adapter and ControlNet, and with a LoRA made here; by SDXL
from a text. diffusers runs the networks; text, guidance and sampling follow ComfyUI (sigmas, order, scale), as flow does. Needs torch, diffusers,
transformers, safetensors and Pillow.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

ROOT = pathlib.Path(__file__).parents[2]
FIXTURES = ROOT / "tests/fixtures"
TEXT, SEED, STEPS, CFG, SIDE = "a red apple on a blue background", 7, 4, 4.0, 256
RANK, ALPHA, STRENGTH = 8, 4.0, 0.8

torch.set_grad_enabled(False)


def names(list_file, part=None):
    """The file's name by diffusers' name; where it is a part of a tensor, with that part in brackets."""
    found, inside = {}, part is None
    for line in (FIXTURES / list_file).read_text().splitlines():
        if line.startswith("#"):
            inside = line == f"# {part}"
        elif inside:
            file, diffusers, _ = line.split("\t")
            name, *turned = diffusers.split(" T")
            found[name] = file + " T" * len(turned)
    return found


def fill(module, path, keys):
    own = module.state_dict()
    if not any(key in keys for key in own):
        # transformers calls its text towers now one way, now the other.
        keys = {key.removeprefix("text_model."): file for key, file in keys.items()}
    with safe_open(path, "pt") as file:

        def tensor(spec):
            name, first, last = re.fullmatch(r"([^\[ ]+)(?:\[(\d+):(\d+)\])?(?: T)?", spec).groups()
            return file.get_tensor(name)[int(first) : int(last)] if first else file.get_tensor(name)

        state = {key: tensor(keys[key]).float() for key in own if key in keys}
        state = {key: (t.T if keys[key].endswith(" T") else t).reshape(own[key].shape) for key, t in state.items()}
    missing = [key for key in own if key not in state and not key.endswith("position_ids")]
    assert not missing, missing
    module.load_state_dict(state, strict=False, assign=True)
    return module.float().eval()


def model(kind, path):
    from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        match kind:
            case "unet":
                made, keys = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8), names("keys/sd15.tsv", kind)
            case "vae":
                sides = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
                channels = (128, 256, 512, 512)
                made = AutoencoderKL(
                    block_out_channels=channels, down_block_types=sides[0], up_block_types=sides[1], layers_per_block=2
                )
                keys = names("keys/sd15.tsv", kind)
            case "controlnet":
                made = ControlNetModel(cross_attention_dim=768, attention_head_dim=8)
                keys = names("keys/controlnet_sd15.tsv")
    if kind == "text_encoder":
        config = CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12, projection_dim=768)
        made, keys = CLIPTextModel(config), names("keys/sd15.tsv", kind)
    return fill(made, path, keys)


def sdxl(part, path):
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    if part == "unet":
        with torch.device("meta"):
            made = UNet2DConditionModel(
                block_out_channels=(320, 640, 1280), layers_per_block=2, cross_attention_dim=2048,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
                transformer_layers_per_block=(1, 2, 10), attention_head_dim=(5, 10, 20), use_linear_projection=True,
                addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
            )  # fmt: skip
    elif part == "text_encoder":
        made = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_attention_heads=12))
    else:
        made = CLIPTextModelWithProjection(
            CLIPTextConfig(
                hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, projection_dim=1280,
                hidden_act="gelu",
            )
        )  # fmt: skip
    return fill(made, path, names("sdxl/keys.tsv", part))


def sdxl_texts(path):
    """Context and pooled text of [negative, positive]: states before the last layer of both towers, side by side."""
    both = torch.cat([tokens(""), tokens(TEXT)])
    narrow = sdxl("text_encoder", path)(both, output_hidden_states=True).hidden_states[-2]
    # The second tower's texts are filled up with 0.
    ended = both.eq(49407).cumsum(1) > 1
    wide = sdxl("text_encoder_2", path)(both.masked_fill(ended, 0), output_hidden_states=True)
    return torch.cat([narrow, wide.hidden_states[-2]], -1), wide.text_embeds


def tokens(text):
    prompts = json.loads((ROOT / "tests/fixtures/clip_text/prompts.json").read_text())["prompts"]
    chunk = next(prompt for prompt in prompts if prompt["text"] == text)["chunks"][0]["tokens"]
    return torch.tensor([(chunk + [49407] * 77)[:77]])


def schedule():
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    bars = torch.cumprod(1 - betas, 0)
    sigmas = ((1 - bars) / bars) ** 0.5
    times = torch.linspace(999, 0, STEPS, dtype=torch.float64)
    low = times.floor().long()
    share, logs = times - low, sigmas.log()
    picked = ((1 - share) * logs[low] + share * logs[(low + 1).clamp(max=999)]).exp()
    nearest = [int((logs - s.log()).abs().argmin()) for s in picked]
    return torch.cat([picked, torch.zeros(1, dtype=torch.float64)]).float(), nearest


def draw(unet, contexts, extra=lambda x, t: {}):
    """Euler's method with guidance; the batch is [negative, positive]."""
    sigmas, times = schedule()
    noise = torch.randn(1, 4, SIDE // 8, SIDE // 8, generator=torch.Generator().manual_seed(SEED))
    x = noise * (1 + sigmas[0] ** 2) ** 0.5
    for i, t in enumerate(times):
        sigma = sigmas[i]
        both = (x / (sigma**2 + 1) ** 0.5).repeat(2, 1, 1, 1)
        eps = unet(both, t, contexts, **extra(both, t)).sample
        denoised = [x - sigma * e[None] for e in eps]
        guess = denoised[0] + (denoised[1] - denoised[0]) * CFG
        x = x + (x - guess) / sigma * (sigmas[i + 1] - sigma)
    return x


def lora(unet, path):
    """A LoRA of all attention of the UNet, with kohya's names; and the UNet with it."""
    generator, tensors = torch.Generator().manual_seed(3), {}
    for name, module in unet.named_modules():
        if isinstance(module, torch.nn.Linear) and re.search(r"attn\d\.to_(q|k|v|out\.0)$", name):
            out, inside = module.weight.shape
            down = (torch.randn(RANK, inside, generator=generator) * inside**-0.5).half()
            up = (torch.randn(out, RANK, generator=generator) * 0.3).half()
            at = "lora_unet_" + name.replace(".", "_")
            tensors |= {f"{at}.lora_down.weight": down, f"{at}.lora_up.weight": up, f"{at}.alpha": torch.tensor(ALPHA)}
            module.weight += STRENGTH * ALPHA / RANK * (up.float() @ down.float())
    path.parent.mkdir(exist_ok=True)
    save_file(tensors, path)


WORKFLOWS = {
    "text": ("", "ckpt", "pos", "neg"),
    "look and outline": (
        """
  ref:    { type: LoadImage, image: look.png }
  edges:  { type: LoadImage, image: edges.png }
  vision: { type: LoadCLIPVision, file: VISION }
  seen:   { type: CLIPVisionEncode, clip_vision: vision, image: ref }
  ip:     { type: LoadIPAdapter, file: ADAPTER }
  styled: { type: IPAdapterApply, model: ckpt, ipadapter: ip, clip_vision_output: seen, weight: 0.7 }
  net:    { type: LoadControlNet, file: CONTROLNET }
  held:   { type: ControlNetApply, positive: pos, negative: neg, control_net: net, image: edges, strength: 0.8 }""",
        "styled",
        "held.positive",
        "held.negative",
    ),
    "SDXL": ("", "ckpt", "pos", "neg"),
    "LoRA": ("\n  taught: { type: LoraLoaderModelOnly, model: ckpt, lora_name: made, strength_model: 0.8 }", "taught", "pos", "neg"),
}


def flow(folder, models, case, arguments):
    """The picture flow draws, and the most memory it used."""
    nodes, model, positive, negative = WORKFLOWS[case]
    file = lambda sub: next((models / sub).glob("*.safetensors")).name
    for word, sub in [("VISION", "clip_vision"), ("ADAPTER", "ipadapter"), ("CONTROLNET", "controlnet")]:
        nodes = nodes.replace(word, file(sub) if word in nodes else "")
    (folder / "case.yaml").write_text(f"""flow: 1
nodes:
  ckpt: {{ type: LoadCheckpoint, file: {'sdxl' if case == 'SDXL' else 'sd15'}.safetensors }}
  pos:  {{ type: CLIPTextEncode, clip: ckpt, text: "{TEXT}" }}
  neg:  {{ type: CLIPTextEncode, clip: ckpt, text: "" }}{nodes}
  out:  {{ type: KSampler, model: {model}, positive: {positive}, negative: {negative}, seed: {SEED}, steps: {STEPS}, cfg: {CFG},
           sampler: euler, scheduler: normal, latent: {{ type: EmptyLatentImage, width: {SIDE}, height: {SIDE} }} }}
  img:  {{ type: VAEDecode, samples: out, vae: ckpt }}
  save: {{ type: SaveImage, images: img, path: made.png }}
""")
    command = [ROOT / "target/release/flow", "run", "case.yaml", "-q", "--no-cache", "--models", models]
    command += ["--precision", arguments.precision, "--out", folder]
    command += ["--ram", arguments.ram] if arguments.ram else []
    process, peak = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL), 0
    # What the system tells at the end counts this process too, which has just been copied.
    while process.poll() is None:
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        if "Name:\tflow" in status:
            found = re.search(r"VmHWM:\s+(\d+)", status)
            peak = max(peak, int(found[1]) if found else 0)
        time.sleep(0.05)
    assert process.returncode == 0, case
    return np.asarray(Image.open(folder / "made.png").convert("RGB")).astype(float), peak / 2**20


def reference(folder, models, case):
    if case == "SDXL":
        checkpoint = models / "checkpoints/sdxl.safetensors"
        contexts, pooled = sdxl_texts(checkpoint)
        more = {"text_embeds": pooled, "time_ids": torch.tensor([[SIDE, SIDE, 0, 0, SIDE, SIDE]] * 2)}
        latent = draw(sdxl("unet", checkpoint), contexts, lambda x, t: {"added_cond_kwargs": more})
        return decoded(latent / 0.13025, checkpoint)
    checkpoint = models / "checkpoints/sd15.safetensors"
    clip = model("text_encoder", checkpoint)
    contexts = torch.cat([clip(tokens(text)).last_hidden_state for text in ["", TEXT]])
    unet, extra = model("unet", checkpoint), lambda x, t: {}
    if case == "LoRA":
        lora(unet, models / "loras/made.safetensors")
    if case == "look and outline":
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        config = CLIPVisionConfig(
            hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=16, patch_size=14,
            image_size=224, projection_dim=1024, hidden_act="gelu",
        )  # fmt: skip
        vision = CLIPVisionModelWithProjection(config)
        path = next((models / "clip_vision").glob("*.safetensors"))
        fill(vision, path, {key: key for key in vision.state_dict()})
        look = torch.from_numpy(np.asarray(Image.open(folder / "look.png").convert("RGB")).astype(np.float32) / 255)
        small = torch.nn.functional.interpolate(
            look.permute(2, 0, 1)[None], size=(224, 224), mode="bicubic", antialias=True
        )
        small = (255 * small).clip(0, 255).round() / 255
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).reshape(1, 3, 1, 1)
        std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).reshape(1, 3, 1, 1)
        seen = vision((small - mean) / std).image_embeds
        del vision
        state = {"image_proj": {}, "ip_adapter": {}}
        for key, value in load_file(next((models / "ipadapter").glob("*.safetensors"))).items():
            part, rest = key.split(".", 1)
            state[part][rest] = value.float()
        unet._load_ip_adapter_weights([state])
        for processor in unet.attn_processors.values():
            if hasattr(processor, "scale"):
                processor.scale = [0.7]
        both = torch.cat([torch.zeros_like(seen), seen])[:, None]
        net = model("controlnet", next((models / "controlnet").glob("*.safetensors")))
        hint = torch.from_numpy(np.asarray(Image.open(folder / "edges.png").convert("RGB")).astype(np.float32) / 255)
        hint = hint.permute(2, 0, 1)[None].repeat(2, 1, 1, 1)

        def extra(x, t):
            down, mid = net(x, t, contexts, hint, conditioning_scale=0.8, return_dict=False)
            return dict(
                down_block_additional_residuals=down,
                mid_block_additional_residual=mid,
                added_cond_kwargs={"image_embeds": [both]},
            )

    latent = draw(unet, contexts, extra) / 0.18215
    del unet
    return decoded(latent, checkpoint)


def decoded(latent, checkpoint):
    picture = model("vae", checkpoint).decode(latent).sample[0]
    picture = ((picture + 1) / 2).clamp(0, 1).permute(1, 2, 0).numpy()
    return np.floor(picture.astype(np.float64) * 255)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=pathlib.Path)
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--ram", help="what flow may keep of models and results")
    parser.add_argument("--only", nargs="*", default=list(WORKFLOWS))
    arguments = parser.parse_args()
    models = arguments.models.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        inputs = ROOT / "models/tiny-sd/reference/inputs"
        large = lambda file: Image.open(inputs / file).convert("RGB").resize((SIDE, SIDE), Image.NEAREST)
        large("product_handbag.png").save(folder / "look.png")
        large("product_teapot_canny.png").save(folder / "edges.png")
        for case in arguments.only:
            want = reference(folder, models, case)
            got, peak = flow(folder, models, case, arguments)
            error = ((got - want) ** 2).mean()
            psnr = 10 * np.log10(255**2 / error) if error else float("inf")
            print(
                f"{case:17} {arguments.precision}: {psnr:6.1f} dB from diffusers, {(got != want).mean():.2%} of the values differ, "
                f"spread {want.std():.1f}, at most {peak:.2f} GiB resident",
                flush=True,
            )


main()
