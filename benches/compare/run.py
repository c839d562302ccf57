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

On an NVIDIA card, with a build for it (docs/gpu.md), times end when the card is done, the last column is the most of its memory that a contender took, by what the
driver tells every few milliseconds, and `graphs` has the UNet's calls recorded, as `compile` has:

    .ci/cuda bench --features cudnn --bench compare --no-run
    python benches/compare/run.py MODELS/checkpoints/sd15.safetensors unet:512 vae:512 held:512 picture:512 --device cuda --rounds 20
    python benches/compare/run.py MODELS/checkpoints/sdxl.safetensors unet:1024 --device cuda --rounds 20
"""

import argparse
import ctypes
import json
import os
import pathlib
import statistics
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).parent
COMFYUI = ["comfyui:f32", "comfyui:sdpa", "comfyui:bf16"]
CONTENDERS = {
    "unet": ["flow:bf16", "flow:int8", "flow:f32", "torch:bf16", "torch:f32", "compile:bf16", "sdcpp:f16", "sdcpp:q8_0", *COMFYUI],
    "vae": ["flow:bf16", "flow:f32", "torch:bf16", "torch:f32", *COMFYUI],
    "held": ["flow:bf16", "flow:int8", "flow:f32", "torch:bf16", "torch:f32", *COMFYUI],
    "picture": ["flow:bf16", "flow:int8", "flow:f32", "torch:bf16", "torch:f32", "compile:bf16", "sdcpp:q8_0", *COMFYUI],
    "clip": ["flow:bf16", "flow:f32", "torch:bf16", "torch:f32", *COMFYUI],
}
HALVES = ["flow:f16", "flow:bf16", "torch:f16", "torch:bf16"]
ON_A_CARD = {
    "unet": ["graphs:f16", *HALVES, "flow:f32", "torch:f32", "compile:f16"],
    "vae": [*HALVES, "flow:f32", "torch:f32", "compile:f16"],
    "held": HALVES,
    "picture": ["graphs:f16", *HALVES, "compile:f16"],
    "clip": ["flow:f32", "torch:f32"],
}


class Card:
    """The memory of the first NVIDIA card."""

    class Memory(ctypes.Structure):
        _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]

    def __init__(self):
        try:
            self.nvml, self.device = ctypes.CDLL("libnvidia-ml.so.1"), ctypes.c_void_p()
        except OSError as error:
            sys.exit(f"there is no driver for NVIDIA cards here: {error}")
        self.told(self.nvml.nvmlInit_v2())
        self.told(self.nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(self.device)))

    def told(self, status):
        assert status == 0, f"the driver's library says {status}"

    def used(self):
        memory = self.Memory()
        self.told(self.nvml.nvmlDeviceGetMemoryInfo(self.device, ctypes.byref(memory)))
        return memory.used

    def most_while(self, work):
        """What `work` gives, and how much memory it took at most beyond what was taken before."""
        before, most, done = self.used(), 0, threading.Event()

        def watch():
            nonlocal most
            while not done.is_set():
                most = max(most, self.used() - before)
                time.sleep(0.002)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            result = work()
        finally:
            done.set()
            watcher.join()
        return result, most, self.used() - before


class Contender:
    """A process that runs one part whenever it is told to."""

    def __init__(self, name, part, side, checkpoint, threads, card):
        self.name, self.runs, self.card, self.held, self.most = name, [], card, 0, 0
        program, precision = name.split(":")
        arguments = [part, str(side), precision, checkpoint]
        command = [flow(), *arguments] if program in ("flow", "graphs") else [sys.executable, HERE / "peers.py", program, *arguments]
        threads = str(threads)
        env = dict(os.environ, RAYON_NUM_THREADS=threads, OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads)
        env |= {"SD_THREADS": threads, "DEVICE": "cuda" if card else "cpu", "FLOW_CUDA_GRAPHS": str(int(program == "graphs"))}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=env)
        self.ready = self.watched(self.answer)["ready"]

    def answer(self):
        while line := self.process.stdout.readline():
            if line.startswith("{"):
                return json.loads(line)
        raise RuntimeError(f"{self.name} ended")

    def run(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.watched(self.answer)

    def watched(self, work):
        """What `work` gives; on a card its `peak` is the most that was ever taken of the card's memory."""
        if not self.card:
            return work()
        answer, most, more = self.card.most_while(work)
        self.most = max(self.most, self.held + most)
        self.held += more
        answer["peak"] = self.most
        return answer

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def flow():
    """The newest build of `flow.rs`."""
    built = (HERE.parents[1] / "target/release/deps").glob("compare-*")
    built = [path for path in built if not path.suffix]
    return max(built, key=lambda path: path.stat().st_mtime)


def compare(part, side, checkpoint, threads, rounds, wanted, card):
    names = [name for name in (ON_A_CARD if card else CONTENDERS)[part] if not wanted or name in wanted]
    contenders = []
    for name in names:
        try:
            contenders.append(Contender(name, part, side, checkpoint, threads, card))
        except RuntimeError as error:
            print(f"  {error}", file=sys.stderr)
    # A whole picture is long enough that its first step does not count; on a card nothing is, and what is recorded is repeated from the
    # third time on.
    for _ in range(3 if card else int(part != "picture")):
        for contender in contenders:
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


def show(rows, card):
    best = {row["contender"]: row for row in rows}
    # On a processor others share, what it computed says more than what was waited.
    clock, halves = ("wall", "f16") if card else ("cpu", "bf16")
    for row in rows:
        ratio = lambda name: f"{best[name][clock] / row[clock]:.2f}" if name in best else "-"
        print(
            f"{row['part']:5} {row['side']:5} {row['threads']}t  {row['contender']:13} wall {row['wall']:8.4f} s  "
            f"cpu {row['cpu']:8.3f} s  flow {halves} / it {ratio('flow:' + halves)}  flow f32 / it {ratio('flow:f32')}  "
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
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--json", help="file for the rows")
    arguments = parser.parse_args()
    card = Card() if arguments.device == "cuda" else None
    all_rows = []
    for threads in arguments.threads:
        for case in arguments.cases:
            part, side = case.split(":")
            rows = compare(part, int(side), arguments.checkpoint, threads, arguments.rounds, arguments.only, card)
            show(rows, card)
            all_rows += rows
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(all_rows, indent=1))


main()
