"""The other programs' side of the comparison: one part of a pipeline, run when told to; `run.py` starts it.

    peers.py torch|compile|sdcpp|comfyui PART SIDE PRECISION CHECKPOINT [RESULT]

Answers as `flow.rs` does. PyTorch's models are those of diffusers; stable-diffusion.cpp comes as stable-diffusion-cpp-python; ComfyUI
is in `comfyui.py`. `DEVICE=cuda` has PyTorch compute on the first card: with activations NHWC and its own attention, as diffusers' guide to speed has it.
"""

import json
import os
import pathlib
import resource
import sys
import time

FIXTURES = pathlib.Path(__file__).parents[2] / "tests/fixtures"
KEYS = FIXTURES / "keys/sd15.tsv"
DEVICE = os.environ.get("DEVICE", "cpu")


def say(line):
    print(json.dumps(line), flush=True)


def serve(run, start, result):
    """Says how long loading took; then runs once for each line, and says what it took."""
    say({"ready": time.perf_counter() - start})
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        y = run()
        if DEVICE == "cuda":
            import torch

            torch.cuda.synchronize()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        if result:
            from safetensors.torch import save_file

            save_file({"result": y.float().contiguous()}, result)
        say({"wall": wall, "cpu": cpu, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})


def section(name, keys=KEYS):
    """The file's name by diffusers', of one part of a checkpoint."""
    names, inside = {}, False
    for line in keys.read_text().splitlines():
        if line.startswith("#"):
            inside = line == f"# {name}"
        elif inside:
            file, diffusers, _ = line.split("\t")
            names[diffusers] = file
    return names


def ready(module, dtype):
    """The module where and as it computes."""
    import torch

    if DEVICE == "cuda":
        return module.to(DEVICE, dtype, memory_format=torch.channels_last).eval()
    return module.to(dtype).eval()


def compiled(module):
    import torch

    # On a card with its calls recorded as graphs, which is what this mode adds.
    return torch.compile(module, mode="reduce-overhead" if DEVICE == "cuda" else None)


def is_xl(checkpoint):
    from safetensors import safe_open

    with safe_open(checkpoint, "pt") as file:
        return "model.diffusion_model.label_emb.0.0.weight" in file.keys()


def weights(part, module, checkpoint, dtype, keys=KEYS):
    """The module with the checkpoint's weights."""
    from safetensors import safe_open

    names, own = section(part, keys), module.state_dict()
    if not any(key in names for key in own):
        # transformers calls its text tower now one way, now the other.
        names = {key.removeprefix("text_model."): file for key, file in names.items()}
    with safe_open(checkpoint, "pt") as file:
        state = {key: file.get_tensor(names[key]).reshape(own[key].shape) for key in own if key in names}
    module.load_state_dict(state, strict=False, assign=True)
    missing = set(own) - set(state)
    assert not {name for name in missing if not name.endswith("position_ids")}, missing
    return ready(module, dtype)


def xl_unet(checkpoint, dtype):
    import torch
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280), layers_per_block=2, cross_attention_dim=2048,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10), attention_head_dim=(5, 10, 20), use_linear_projection=True,
            addition_embed_type="text_time", addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
        )  # fmt: skip
    return weights("unet", unet, checkpoint, dtype, FIXTURES / "sdxl/keys.tsv")


def attach(unet, models, dtype):
    """Gives the UNet an IP-Adapter; returns a ControlNet. diffusers names both files' tensors as they are."""
    from diffusers import ControlNetModel
    from safetensors.torch import load_file
    import torch

    state = {"image_proj": {}, "ip_adapter": {}}
    for key, value in load_file(next((models / "ipadapter").glob("*.safetensors"))).items():
        part, rest = key.split(".", 1)
        state[part][rest] = value.float()
    unet._load_ip_adapter_weights([state])
    unet.to(DEVICE, dtype)
    with torch.device("meta"):
        net = ControlNetModel(cross_attention_dim=768, attention_head_dim=8)
    names = {}
    for line in (KEYS.parent / "controlnet_sd15.tsv").read_text().splitlines():
        if not line.startswith("#"):
            file, diffusers, _ = line.split("\t")
            names[diffusers] = file
    file, own = load_file(next((models / "controlnet").glob("*.safetensors"))), net.state_dict()
    net.load_state_dict({key: file[names[key]].reshape(own[key].shape) for key in own}, assign=True)
    return ready(net, dtype)


def torch_part(kind, part, side, precision, checkpoint, result):
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.set_grad_enabled(False)
    torch.backends.cudnn.benchmark = True
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[precision]
    random = lambda seed, *shape: torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)
    start, latent = time.perf_counter(), side // 8
    if is_xl(checkpoint):
        assert part == "unet", "of SDXL there is a step alone"
        unet = xl_unet(checkpoint, dtype)
        x, context = random(1, 2, 4, latent, latent), random(2, 2, 77, 2048)
        # y is the pooled text and six sizes; here they are made of the text and 0.
        more = {"added_cond_kwargs": {"text_embeds": random(5, 2, 1280), "time_ids": torch.zeros(2, 6, device=DEVICE, dtype=dtype)}}
        unet = compiled(unet) if kind == "compile" else unet
        return serve(lambda: unet(x, 500, context, return_dict=False, **more)[0], start, result)
    if part in ("unet", "held", "picture"):
        with torch.device("meta"):
            unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
        unet = weights("unet", unet, checkpoint, dtype)
        x, context = random(1, 2, 4, latent, latent), random(2, 2, 77, 768)
        if kind == "compile":
            unet = compiled(unet)
        run = lambda: unet(x, 500, context, return_dict=False)[0]
        if part == "held":
            net = attach(unet, pathlib.Path(checkpoint).parents[1], dtype)
            hint, seen = random(3, 2, 3, side, side), random(4, 1, 1, 1024).repeat(2, 1, 1)

            def run():
                down, mid = net(x, 500, context, hint, return_dict=False)
                more = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
                more["added_cond_kwargs"] = {"image_embeds": [seen]}
                return unet(x, 500, context, return_dict=False, **more)[0]

    if part in ("vae", "picture"):
        with torch.device("meta"):
            vae = AutoencoderKL(
                block_out_channels=(128, 256, 512, 512),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=2,
            )
        vae, z = weights("vae", vae, checkpoint, dtype), random(1, 1, 4, latent, latent)
        if kind == "compile":
            vae.decoder = compiled(vae.decoder)
        run = lambda: vae.decode(z, return_dict=False)[0]
    if part in ("clip", "picture"):
        config = CLIPTextConfig(projection_dim=768, hidden_size=768, intermediate_size=3072, num_attention_heads=12)
        clip = weights("text_encoder", CLIPTextModel(config), checkpoint, dtype)
        tokens = torch.full((1, 77), 320, device=DEVICE)
        run = lambda: clip(tokens)[0]
    if part == "picture":
        noise = random(1, 1, 4, latent, latent)

        def run():
            texts, x = clip(tokens.repeat(2, 1))[0], noise
            for i in range(20):
                without, with_text = unet(torch.cat([x, x]), 999 - 50 * i, texts, return_dict=False)[0].chunk(2)
                x = x - 0.05 * (without + 7 * (with_text - without))
            return vae.decode(x, return_dict=False)[0]

    serve(run, start, result)


def comfyui_part(part, side, precision, checkpoint, result):
    import comfyui

    comfyui.begin(precision)
    start = time.perf_counter()
    serve(comfyui.ready(part, side, checkpoint), start, result)


def sdcpp(part, side, precision, checkpoint):
    """Whole pictures: a step is what one more of them adds, decoding is what is said of it."""
    from stable_diffusion_cpp import StableDiffusion

    start = time.perf_counter()
    # Left to itself it counts cores where there may be none to count.
    threads = int(os.environ["SD_THREADS"])
    model = StableDiffusion(
        model_path=checkpoint, wtype=precision, n_threads=threads, vae_decode_only=True, verbose=False
    )
    say({"ready": time.perf_counter() - start})

    def picture(steps):
        wall, cpu = time.perf_counter(), time.process_time()
        model.generate_image("a kettle", width=side, height=side, sample_steps=steps, cfg_scale=7.0, sample_method="euler")
        return time.perf_counter() - wall, time.process_time() - cpu

    for _ in sys.stdin:
        if part == "unet":
            short, long = picture(1), picture(2)
            wall, cpu = long[0] - short[0], long[1] - short[1]
        else:
            wall, cpu = picture(20)
        say({"wall": wall, "cpu": cpu, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024})


def main():
    kind, part, side, precision, checkpoint, *result = sys.argv[1:]
    result = result[0] if result else None
    if kind == "sdcpp":
        sdcpp(part, int(side), precision, checkpoint)
    elif kind == "comfyui":
        comfyui_part(part, int(side), precision, checkpoint, result)
    else:
        torch_part(kind, part, int(side), precision, checkpoint, result)


main()
