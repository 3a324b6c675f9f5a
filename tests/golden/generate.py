#!/usr/bin/env python3
"""Pictures of the demo's model by diffusers on the CPU: generate.py demo/emoji-sd > generate.safetensors

Per case, named SAMPLER-STEPS-GUIDANCE-COUNT-WIDTHxHEIGHT: NAME.latents (before the VAE), NAME.images (NHWC).
"""
import argparse, logging, sys
import numpy as np
import torch
from diffusers import (DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler,
                       StableDiffusionPipeline)
from safetensors.torch import save

a = argparse.ArgumentParser()
a.add_argument("model")
a = a.parse_args()
logging.disable(logging.CRITICAL)
torch.set_num_threads(1)
pipe = StableDiffusionPipeline.from_pretrained(a.model, safety_checker=None, torch_dtype=torch.float32)
pipe.set_progress_bar_config(disable=True)
KINDS = {"ddim": DDIMScheduler, "pndm": PNDMScheduler, "euler": EulerDiscreteScheduler,
         "dpmpp2m": DPMSolverMultistepScheduler}
own, tensors = pipe.scheduler, {}
for sampler, steps, guidance, count, width, height in (
        ("model", 3, 7.5, 2, 64, 64), ("ddim", 4, 1.0, 1, 64, 64), ("pndm", 4, 4.0, 1, 48, 64),
        ("euler", 4, 4.0, 1, 64, 40), ("dpmpp2m", 5, 4.0, 3, 32, 32)):
    pipe.scheduler = own if sampler == "model" else KINDS[sampler].from_config(own.config)
    arguments = dict(prompt="a photo of a fox", negative_prompt="red", guidance_scale=guidance, width=width,
                     height=height, num_inference_steps=steps, num_images_per_prompt=count)
    name = f"{sampler}-{steps}-{guidance}-{count}-{width}x{height}"
    generator = torch.Generator().manual_seed(5)
    tensors[name + ".latents"] = pipe(**arguments, generator=generator, output_type="latent").images
    images = pipe(**arguments, generator=generator.manual_seed(5), output_type="np").images
    tensors[name + ".images"] = torch.from_numpy((images * 255).round().astype(np.uint8)).contiguous()
sys.stdout.buffer.write(save(tensors))
