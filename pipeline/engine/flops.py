"""What a model's forward pass costs, and what this machine can do: the two sides of model FLOP utilisation."""

import statistics
import time

import numpy as np
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES

from pipeline.engine.spec import ModelSpec
from pipeline.records.batches import Int64

_PROBE_LENGTHS = (16, 32, 48)
_MATRIX_SIZE = {"cpu": 1_536, "cuda": 8_192}
_MATRIX_RUNS = 7


def forward_flops(spec: ModelSpec, lengths: Int64) -> float:
    """Returns the floating-point operations of one forward pass over texts of these lengths, each alone.

    Counted on a model without weights at three lengths, between which the cost is a parabola: linear
    layers grow with the length, attention with its square. Attention counts in full for causal models
    too, as is usual; what a text costs whatever its length (a pooler nobody uses) is left out.
    """
    config = transformers.AutoConfig.from_pretrained(
        str(spec.files.folder), trust_remote_code=False, local_files_only=True
    )
    encoder_alone = config.model_type in MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES
    loader = transformers.AutoModelForTextEncoding if encoder_alone else transformers.AutoModel
    with torch.device("meta"):
        model = loader.from_config(config, attn_implementation="sdpa").eval()  # type: ignore[no-untyped-call] # theirs
    counted = []
    for length in _PROBE_LENGTHS:
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            model(input_ids=torch.zeros((1, length), dtype=torch.int64, device="meta"))
        counted.append(counter.get_total_flops())
    square, linear, _ = np.polyfit(_PROBE_LENGTHS, counted, 2)
    of_all = lengths.astype(np.float64)
    return float(linear * of_all.sum() + square * (of_all**2).sum())


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Returns the floating-point operations a second of a large matrix product here: the median of some runs."""
    size = _MATRIX_SIZE[device.type]
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    rates = []
    for _ in range(_MATRIX_RUNS):
        _synchronize(device)
        began_s = time.perf_counter()
        torch.mm(left, right)
        _synchronize(device)
        rates.append(2 * size**3 / (time.perf_counter() - began_s))
    return statistics.median(rates[1:])


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
