"""Times flow beside PyTorch, ComfyUI and stable-diffusion.cpp on the same weights, taking turns on the same machine.

    python benches/compare/models.py MODELS sd15
    cargo bench --bench compare --no-run
    python benches/compare/run.py MODELS/checkpoints/sd15.safetensors unet:256 unet:512 vae:512 clip:0 held:512 picture:512 \
        --threads 1 2 --rounds 3

`held` is a UNet step with IP-Adapter and ControlNet (models `ip_adapter` and `controlnet` beside), `picture` two texts, 20 steps and the
decoder. Every contender loads its models once and waits; in each round each runs once, one after the other, so that whatever else
the machine does meets all alike. Told are medians of wall and processor time, the ratio to flow, and the peak memory.
Needs torch, diffusers, transformers, safetensors and, for its rows, stable-diffusion-cpp-python, which may be in an
environment of their own: run this with its Python.

ComfyUI's rows need its source folder, named by COMFYUI, and what its requirements.txt names in the same environment:

    COMFYUI=~/ComfyUI python benches/compare/run.py MODELS/checkpoints/sd15.safetensors unet:256 picture:256 \
        --only flow:f32 torch:f32 comfyui:f32 comfyui:sdpa

`comfyui:f32` is what `--cpu` alone gives, `sdpa` adds `--use-pytorch-cross-attention`, `bf16` holds weights so; `comfyui.py` beside this file
says what is then computed in what (its VAE in bf16 was not waited for on a processor without bf16). A part loads no more of the checkpoint than it
needs, a picture all of it; its 20 steps are KSampler's. Its `held` has the ControlNet alone, which is less than the others do. A peak is the whole
process's, Python and what loading takes among it. All contenders of a case are loaded at the same time, and ComfyUI sizes its attention by the memory
that is free: name those that fit together with --only. One that cannot start is left out.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
COMFYUI = ["comfyui:f32", "comfyui:sdpa", "comfyui:bf16"]
CONTENDERS = {
    "unet": ["flow:bf16", "flow:int8", "flow:f32", "torch:bf16", "torch:f32", "compile:bf16", "sdcpp:f16", "sdcpp:q8_0", *COMFYUI],
    "vae": ["flow:bf16", "flow:f32", "torch:bf16", "torch:f32", *COMFYUI],
    "held": ["flow:bf16", "flow:int8", "flow:f32", "torch:bf16", "torch:f32", *COMFYUI],
    "picture": ["flow:bf16", "flow:int8", "flow:f32", "torch:bf16", "torch:f32", "compile:bf16", "sdcpp:q8_0", *COMFYUI],
    "clip": ["flow:bf16", "flow:f32", "torch:bf16", "torch:f32", *COMFYUI],
}


class Contender:
    """A process that runs one part whenever it is told to."""

    def __init__(self, name, part, side, checkpoint, threads):
        self.name, self.runs = name, []
        program, precision = name.split(":")
        arguments = [part, str(side), precision, checkpoint]
        command = [flow(), *arguments] if program == "flow" else [sys.executable, HERE / "peers.py", program, *arguments]
        threads = str(threads)
        env = dict(os.environ, RAYON_NUM_THREADS=threads, OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads)
        env["SD_THREADS"] = threads
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=env)
        self.ready = self.answer()["ready"]

    def answer(self):
        while line := self.process.stdout.readline():
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"{self.name} ended")

    def run(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.answer()

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def flow():
    """The newest build of `flow.rs`."""
    built = (HERE.parents[1] / "target/release/deps").glob("compare-*")
    built = [path for path in built if not path.suffix]
    return max(built, key=lambda path: path.stat().st_mtime)


def compare(part, side, checkpoint, threads, rounds, wanted):
    names = [name for name in CONTENDERS[part] if not wanted or name in wanted]
    contenders = []
    for name in names:
        try:
            contenders.append(Contender(name, part, side, checkpoint, threads))
        except RuntimeError as error:
            print(f"  {error}", file=sys.stderr)
    # A whole picture is long enough that its first step does not count.
    for contender in contenders if part != "picture" else []:
        contender.run()
    for _ in range(rounds):
        for contender in contenders:
            contender.runs.append(contender.run())
    rows = []
    for contender in contenders:
        median = lambda key: statistics.median(run[key] for run in contender.runs)
        row = {"part": part, "side": side, "threads": threads, "contender": contender.name, "load": contender.ready}
        row |= {"wall": median("wall"), "cpu": median("cpu"), "peak": max(run["peak"] for run in contender.runs)}
        rows.append(row)
        contender.end()
    return rows


def show(rows):
    best = {row["contender"]: row for row in rows}
    for row in rows:
        ratio = lambda name: f"{best[name]['cpu'] / row['cpu']:.2f}" if name in best else "-"
        print(
            f"{row['part']:5} {row['side']:5} {row['threads']}t  {row['contender']:13} wall {row['wall']:8.3f} s  "
            f"cpu {row['cpu']:8.3f} s  flow bf16 / it {ratio('flow:bf16')}  flow f32 / it {ratio('flow:f32')}  "
            f"peak {row['peak'] / 2**30:5.2f} GiB  load {row['load']:6.2f} s",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("cases", nargs="+", help="PART:SIDE, such as unet:512")
    parser.add_argument("--threads", type=int, nargs="+", default=[os.cpu_count()])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="contenders, such as flow:bf16 torch:bf16")
    parser.add_argument("--json", help="file for the rows")
    arguments = parser.parse_args()
    all_rows = []
    for threads in arguments.threads:
        for case in arguments.cases:
            part, side = case.split(":")
            rows = compare(part, int(side), arguments.checkpoint, threads, arguments.rounds, arguments.only)
            show(rows)
            all_rows += rows
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(all_rows, indent=1))


main()
