"""The two block formats of the file, Q4_0 and Q8_0: 32 weights share one half-precision scale.

Training and file writing use the same functions, so what the last part of training sees is what the file holds.
"""
import numpy as np
import torch

BLOCK = 32

# Q4_0 stores weight = scale * (code - 8), code 0..15. The scale maps the largest weight to one of these levels;
# of the candidates the one with the least squared error is kept.
Q4_LEVELS = (-8.0, -7.6, -7.2, 7.6, 7.2)


def half(scale):
    """The scale as the file stores it."""
    return scale.half().float()


def safe_divide(blocks, scale):
    return blocks / torch.where(scale == 0, torch.ones_like(scale), scale)


def quantise_q4_0(weights):
    """(scales [blocks, 1], codes [blocks, 32] in 0..15)"""
    blocks = weights.float().reshape(-1, BLOCK)
    extreme = blocks.gather(1, blocks.abs().argmax(1, keepdim=True))
    best_error = best_scale = best_codes = None
    for level in Q4_LEVELS:
        scale = half(extreme / level)
        codes = (safe_divide(blocks, scale) + 8).round().clamp(0, 15)
        error = (((codes - 8) * scale - blocks) ** 2).sum(1, keepdim=True)
        if best_error is None:
            best_error, best_scale, best_codes = error, scale, codes
        else:
            is_better = error < best_error
            best_error = torch.where(is_better, error, best_error)
            best_scale = torch.where(is_better, scale, best_scale)
            best_codes = torch.where(is_better, codes, best_codes)
    return best_scale, best_codes


def quantise_q8_0(weights):
    """(scales [blocks, 1], codes [blocks, 32] in -127..127)"""
    blocks = weights.float().reshape(-1, BLOCK)
    scale = half(blocks.abs().amax(1, keepdim=True) / 127)
    return scale, safe_divide(blocks, scale).round().clamp(-127, 127)


def rounded(weights, format_name):
    """The weights after a round trip through the file's format."""
    if format_name == 'Q4_0':
        scale, codes = quantise_q4_0(weights)
        return ((codes - 8) * scale).reshape(weights.shape)
    if format_name == 'Q8_0':
        scale, codes = quantise_q8_0(weights)
        return (codes * scale).reshape(weights.shape)
    return weights


def packed(weights, format_name):
    """The tensor's bytes in the file."""
    weights = weights.detach().float().cpu()
    if format_name == 'F32':
        return weights.numpy().astype('<f4').tobytes()
    scale, codes = quantise_q4_0(weights) if format_name == 'Q4_0' else quantise_q8_0(weights)
    scale_bytes = scale.numpy().astype('<f2').view(np.uint8)
    if format_name == 'Q8_0':
        code_bytes = codes.numpy().astype(np.int8).view(np.uint8)
    else:
        codes = codes.numpy().astype(np.uint8)
        code_bytes = codes[:, :16] | (codes[:, 16:] << 4)
    return np.concatenate([scale_bytes, code_bytes], axis=1).tobytes()


def format_of(name, tensor):
    """The format of a tensor of the model, by its GGUF name."""
    if tensor.ndim < 2 or 'ffn_gate_inp' in name:
        return 'F32'
    return 'Q4_0' if '_exps' in name else 'Q8_0'


class RoundedWeights:
    """Runs a forward and backward pass on rounded weights, while the optimizer keeps and moves the exact ones.

    The gradient at the rounded weights is applied to the exact weights (straight-through estimate).
    """

    def __init__(self, model):
        self.tensors = [(tensor, format_of(name, tensor)) for name, tensor in model.named_parameters()]
        self.tensors = [pair for pair in self.tensors if pair[1] != 'F32']
        self.exact = []

    @torch.no_grad()
    def __enter__(self):
        self.exact = [tensor.detach().clone() for tensor, _ in self.tensors]
        for tensor, format_name in self.tensors:
            tensor.copy_(rounded(tensor, format_name))

    @torch.no_grad()
    def __exit__(self, *_):
        for (tensor, _), exact in zip(self.tensors, self.exact):
            tensor.copy_(exact)
        self.exact = []
