"""ComfyUI's side of the comparison: its own nodes and models, as `--cpu` runs them; `peers.py` asks for it.

ComfyUI's folder is named by the environment variable COMFYUI. Nothing is served and no third-party node is loaded. Its own choice on a
processor is f32, by attention in parts ("sub-quadratic"); bf16 is how it then holds weights of UNets and ControlNets, which are
multiplied in f32 all the same, while the VAE does compute in it.
"""

import os
import pathlib
import sys

OPTIONS = {
    "f32": [],
    "sdpa": ["--use-pytorch-cross-attention"],
    "bf16": ["--bf16-unet", "--bf16-vae", "--bf16-text-enc"],
}
TEXT = "a kettle on a marble table, morning light"
STEPS, CFG, SEED, TIME = 20, 7.0, 1, 500


def begin(precision):
    """Imports ComfyUI, which reads its options while it is imported."""
    sys.path.insert(0, os.environ["COMFYUI"])
    sys.argv = ["main.py", "--cpu", *OPTIONS[precision]]
    import comfy.options

    comfy.options.enable_args_parsing()
    import nodes


def ready(part, side, checkpoint):
    """Loads what the part needs of the checkpoint; returns what runs it once and gives a tensor as the other contenders'."""
    import torch

    # ComfyUI executes every node in this mode.
    with torch.inference_mode():
        run = PARTS[part](side, pathlib.Path(checkpoint))
    return torch.inference_mode()(run)


def load(checkpoint, **wanted):
    """[model, clip, vae] as CheckpointLoaderSimple gives them; only what is wanted."""
    from comfy.sd import load_checkpoint_guess_config

    wanted = {f"output_{name}": name in wanted for name in ("model", "clip", "vae")}
    return load_checkpoint_guess_config(str(checkpoint), **wanted)[:3]


def random(seed, *shape):
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def unet(side, checkpoint):
    return step(load(checkpoint, model=True)[0], side)


def held(side, checkpoint):
    """A step with a ControlNet, and without the IP-Adapter that the others have: that is no part of ComfyUI."""
    from comfy.controlnet import load_controlnet

    net = load_controlnet(str(next((checkpoint.parents[1] / "controlnet").glob("*.safetensors"))))
    return step(load(checkpoint, model=True)[0], side, net.set_cond_hint(random(3, 2, 3, side, side)))


def step(patcher, side, net=None):
    """The UNet's guess of the noise, batch 2, as the sampler asks for it: by a sigma and an input not yet scaled."""
    import torch
    from comfy.model_management import load_models_gpu

    model = patcher.model
    load_models_gpu([patcher, *(net.get_models() if net else [])])
    x, context = random(1, 2, 4, side // 8, side // 8), random(2, 2, 77, 768)
    sigma = model.model_sampling.sigma(torch.tensor([TIME] * 2))
    spread = sigma[:, None, None, None]
    x = x * (spread**2 + 1) ** 0.5
    if net:
        net.pre_run(model, model.model_sampling.percent_to_sigma)

    def run():
        control = net.get_control(x, sigma, {"c_crossattn": context}, 2, {}) if net else None
        return (x - model.apply_model(x, sigma, c_crossattn=context, control=control)) / spread

    return run


def vae(side, checkpoint):
    z, decoder = {"samples": random(1, 1, 4, side // 8, side // 8)}, load(checkpoint, vae=True)[2]
    return lambda: decoded(decoder, z)


def decoded(decoder, latent):
    """The picture as the decoder gives it, but for values beyond white and black, which ComfyUI cuts off."""
    from nodes import VAEDecode

    return VAEDecode().decode(decoder, latent)[0].movedim(-1, 1) * 2 - 1


def clip(side, checkpoint):
    from nodes import CLIPTextEncode

    tower = load(checkpoint, clip=True)[1]
    return lambda: CLIPTextEncode().encode(tower, f"{TEXT}, best quality")[0][0][0]


def picture(side, checkpoint):
    from nodes import CLIPTextEncode, EmptyLatentImage, KSampler

    model, tower, decoder = load(checkpoint, model=True, clip=True, vae=True)

    def run():
        negative, positive = (CLIPTextEncode().encode(tower, text)[0] for text in ("", TEXT))
        latent = EmptyLatentImage().generate(side, side)[0]
        latent = KSampler().sample(model, SEED, STEPS, CFG, "euler", "normal", positive, negative, latent)[0]
        return decoded(decoder, latent)

    return run


PARTS = {"unet": unet, "vae": vae, "clip": clip, "held": held, "picture": picture}
