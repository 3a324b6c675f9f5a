#!/usr/bin/env python3
"""What diffusers' schedulers make of a model that is a formula: samplers.py > samplers.txt (diffusers 0.42).

The model: output[i] = 0.6 x[i] - 0.2 x[i + 1] + 0.3 t / 1000 over six numbers in a ring. Lines:
    config JSON
    run SAMPLER STEPS CALLS INIT_SIGMA  timestep ...  x ...      (x begins as START * INIT_SIGMA)
The model's own scheduler is patched as StableDiffusionPipeline patches it; the others are made from its configuration.
"""
import json, logging, warnings
import diffusers, torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, PNDMScheduler
from diffusers.configuration_utils import FrozenDict

warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
START = [1.0, -0.5, 0.25, 2.0, -1.5, 0.125]
KINDS = {"ddim": DDIMScheduler, "pndm": PNDMScheduler, "euler": EulerDiscreteScheduler,
         "dpmpp2m": DPMSolverMultistepScheduler}
SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
CONFIGS = [
    dict(_class_name="PNDMScheduler", **SD, num_train_timesteps=1000, set_alpha_to_one=False, skip_prk_steps=True,
         steps_offset=1, clip_sample=False, trained_betas=None),
    dict(_class_name="DDIMScheduler", **SD, clip_sample=False, prediction_type="v_prediction", set_alpha_to_one=False,
         steps_offset=1, timestep_spacing="leading"),
    dict(_class_name="DDIMScheduler", **SD),  # every default: clips, final alpha 1, Runge-Kutta start in pndm
    dict(_class_name="DDIMScheduler", **SD, steps_offset=0, clip_sample=True, prediction_type="v_prediction",
         rescale_betas_zero_snr=True, timestep_spacing="trailing"),
    dict(_class_name="EulerDiscreteScheduler", **SD, steps_offset=1, timestep_spacing="leading",
         use_karras_sigmas=False, skip_prk_steps=True),
    dict(_class_name="EulerDiscreteScheduler", **SD, timestep_spacing="linspace", final_sigmas_type="sigma_min",
         prediction_type="v_prediction", skip_prk_steps=True),
    dict(_class_name="DPMSolverMultistepScheduler", **SD, lambda_min_clipped=float("-inf"), timestep_spacing="trailing",
         skip_prk_steps=True),
    dict(_class_name="DPMSolverMultistepScheduler", **SD, timestep_spacing="leading", steps_offset=1,
         lower_order_final=False, final_sigmas_type="sigma_min"),
    dict(_class_name="PNDMScheduler", beta_schedule="squaredcos_cap_v2", num_train_timesteps=100, skip_prk_steps=True,
         timestep_spacing="linspace"),
    dict(_class_name="DPMSolverMultistepScheduler", **SD, use_karras_sigmas=True, skip_prk_steps=True),
    dict(_class_name="EulerDiscreteScheduler", **SD, timestep_spacing="trailing", use_karras_sigmas=True,
         prediction_type="v_prediction", skip_prk_steps=True),
]


def model(x, t):
    return 0.6 * x - 0.2 * torch.roll(x, -1) + 0.3 * float(t) / 1000


def run(name, s, steps):
    try:
        s.set_timesteps(steps)
    except ValueError:  # too few for the Runge-Kutta start
        return
    sigma = float(s.init_noise_sigma)
    x = torch.tensor(START) * sigma
    for t in s.timesteps:
        x = s.step(model(s.scale_model_input(x, t), t), t, x).prev_sample
    numbers = ["%.9g" % float(v) for v in [*s.timesteps, *x]]
    print("run", name, steps, len(s.timesteps), "%.9g" % sigma, *numbers)


for config in CONFIGS:
    print("config", json.dumps(config))
    own = getattr(diffusers, config["_class_name"]).from_config(dict(config))
    patched = dict(own.config)
    if patched.get("steps_offset", 1) != 1:
        patched["steps_offset"] = 1
    if patched.get("clip_sample", False) is True:
        patched["clip_sample"] = False
    own._internal_dict = FrozenDict(patched)
    for steps in (1, 2, 5, 20, 50):
        run("model", own, steps)
        for name, cls in KINDS.items():  # PNDM does not know rescale_betas_zero_snr and passes over it
            run(name, cls.from_config(own.config), steps)
