#!/usr/bin/env python3
"""Values of diffusers' noise and learning-rate schedules: schedules.py > schedules.txt (diffusers 0.42, torch 2.15).

Lines:  noise CONFIG-AS-JSON ...            then: alphas T a_0 a_1 ..., and (for some t) snr T value,
        add DTYPE NOISE_DTYPE T N / velocity ...: sample noise result as hexadecimal bits, N times
        lr NAME base warmup total cycles power N v_0 ...
"""
import json, warnings
import torch
from diffusers import DDPMScheduler
from diffusers.optimization import get_scheduler
from diffusers.training_utils import compute_snr

warnings.simplefilter("ignore")
bits = lambda t: ["%x" % (v & 0xFFFFFFFF) for v in t.float().contiguous().view(torch.int32).tolist()]
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
CONFIGS = [
    dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"),
    dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
         rescale_betas_zero_snr=True),
    dict(),
    dict(beta_schedule="squaredcos_cap_v2", num_train_timesteps=101),
    dict(trained_betas=[0.1, 0.2, 0.5], num_train_timesteps=3),
]
torch.manual_seed(0)
for config in CONFIGS:
    s = DDPMScheduler(**config)
    count = s.config.num_train_timesteps
    print("noise", json.dumps(config))
    print("alphas", count, *bits(s.alphas_cumprod))
    for t in {0, count // 2, count - 1}:
        print("snr", t, *bits(compute_snr(s, torch.tensor([t]))))
        for dtype, noise_dtype in (("F32", "F32"), ("F16", "F16"), ("BF16", "BF16"), ("BF16", "F32")):
            x = torch.randn(1, 5, dtype=DTYPES[dtype])
            e = torch.randn(1, 5, dtype=DTYPES[noise_dtype])
            for name, f in (("add", s.add_noise), ("velocity", s.get_velocity)):
                y = f(x, e, torch.tensor([t]))
                triples = [v for triple in zip(bits(x[0]), bits(e[0]), bits(y[0])) for v in triple]
                print(name, dtype, noise_dtype, t, 5, *triples)
for name in ("constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"):
    for base, warmup, total, cycles, power in ((1e-4, 0, 10, 1, 1.0), (5e-6, 4, 20, 3, 2.0), (3e-4, 7, 8, 1, 0.5),
                                               (1e-3, 30, 20, 2, 1.0)):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=base)
        s = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total, num_cycles=cycles,
                          power=power)
        values = []
        for _ in range(34):
            values.append(s.get_last_lr()[0])
            optimizer.step()
            s.step()
        print("lr", name, base, warmup, total, cycles, power, len(values), *("%.17g" % v for v in values))
