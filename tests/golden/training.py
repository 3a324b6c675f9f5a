#!/usr/bin/env python3
"""Makes tests/golden/training.txt: the losses of diffusers' own train_dreambooth.py on the CPU, on the random pipeline of
`pagebooth init --preset tiny --seed 1` and the demo's pictures.

    python training.py TRAIN_DREAMBOOTH.PY PAGEBOOTH    (made with torch 2.15, transformers 5.23, diffusers 0.42)

TRAIN_DREAMBOOTH.PY is examples/dreambooth/train_dreambooth.py of diffusers' repository without its check_min_version. A
line is a case, the keys that it sets, and, after `|`, the loss of each forward pass.
"""
import importlib.util
import pathlib
import shutil
import subprocess
import sys
import tempfile

CASES = {
    "plain": "resolution=32 train_batch_size=2 max_train_steps=5 seed=42",
    "crops": "resolution=32 train_batch_size=3 max_train_steps=5 seed=5",
    "prior": "resolution=32 train_batch_size=2 max_train_steps=4 seed=3 with_prior_preservation=true num_class_images=4 "
             "prior_loss_weight=0.7 train_text_encoder=true",
    "offset": "resolution=32 train_batch_size=2 max_train_steps=4 seed=7 offset_noise=true snr_gamma=5.0",
    "schedule": "resolution=32 train_batch_size=2 max_train_steps=4 seed=1 gradient_accumulation_steps=2 "
                "lr_scheduler=cosine lr_warmup_steps=2 max_grad_norm=0.05 adam_weight_decay=0.1 learning_rate=3e-4",
    "polynomial": "resolution=32 train_batch_size=1 max_train_steps=6 seed=9 lr_scheduler=polynomial lr_power=2.0 "
                  "lr_warmup_steps=0 learning_rate=3e-4",
}


def child(script):
    """Runs the script in this process; losses go to stdout."""
    entries = pathlib.Path.iterdir
    pathlib.Path.iterdir = lambda self: iter(sorted(entries(self)))  # the script takes the directory's own order
    spec = importlib.util.spec_from_file_location("train_dreambooth", script)
    m = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(m)
    m.Accelerator.log = lambda self, values, step=None, **_: print("LOSS", repr(values["loss"]), flush=True)
    m.main(m.parse_args())


def arguments(keys):
    for key in keys.split():
        name, value = key.split("=")
        yield f"--{name}"
        if value != "true":
            yield value


def main(script, pagebooth):
    here = pathlib.Path(__file__).resolve().parent
    pictures = here.parent.parent / "demo" / "blue-fox"
    with tempfile.TemporaryDirectory() as tmp:
        subprocess.run([pagebooth, "init", "--preset", "tiny", "--seed", "1", f"{tmp}/model"], check=True)
        turned = pathlib.Path(tmp) / "turned"  # not square, with EXIF orientations
        turned.mkdir()
        for i in range(1, 9):
            shutil.copy(here / "images" / f"exif_{i}.jpg", turned)
        lines = []
        for case, keys in CASES.items():
            folder = turned if case == "crops" else pictures
            args = ["--pretrained_model_name_or_path", f"{tmp}/model", "--instance_data_dir", str(folder),
                    "--instance_prompt", "a photo of sks fox", "--checkpointing_steps", "1000", "--output_dir", f"{tmp}/{case}"]
            if "learning_rate" not in keys:
                args += ["--learning_rate", "1e-4"]
            if "with_prior" in keys:
                args += ["--class_data_dir", str(pictures), "--class_prompt", "a photo of a fox"]
            run = subprocess.run([sys.executable, __file__, "--child", script, *args, *arguments(keys)], text=True,
                                 stdout=subprocess.PIPE, check=True)
            losses = [line.split()[1] for line in run.stdout.splitlines() if line.startswith("LOSS")]
            lines.append(f"{case} {keys} | {' '.join(losses)}\n")
        (here / "training.txt").write_text("".join(lines))


if sys.argv[1] == "--child":
    path = sys.argv[2]
    sys.argv = [path, *sys.argv[3:]]
    child(path)
else:
    main(*sys.argv[1:])
