"""Makes official.safetensors with the official writer: every dtype that it and this program share, and some besides."""
import os

import torch
from safetensors.torch import save_file

torch.manual_seed(0)
here = os.path.dirname(os.path.abspath(__file__))
tensors = {
    "unet.b": torch.randn(3, 2),
    "unet.a": torch.randn(5, dtype=torch.float64),
    "half": torch.randn(2, 2, 1).half(),
    "brain": torch.randn(7).bfloat16(),
    "ids": torch.arange(3),
    "small": torch.arange(5, dtype=torch.int32),
    "bytes": torch.arange(5, dtype=torch.uint8),
    "flag": torch.tensor([True, False, True]),
    "eight": torch.randn(3).to(torch.float8_e4m3fn),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 4),
    "schön \"quoted\"": torch.ones(1),
}
save_file(tensors, os.path.join(here, "official.safetensors"), metadata={"format": "pt"})
