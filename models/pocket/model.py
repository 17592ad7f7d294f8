"""The pocket model: the mathematics of `glm4moe`. Parameters carry their GGUF names, so state_dict() is the file's tensor list.

Shapes: B rows, T tokens, H hidden, E experts, F expert FFN, D head size.
"""
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Config:
    hidden: int = 256
    layers: int = 6
    dense_layers: int = 1
    heads: int = 4
    kv_heads: int = 2
    head_size: int = 64
    rope_size: int = 32
    rope_base: float = 10000.0
    experts: int = 16
    experts_used: int = 4
    ffn_expert: int = 256
    ffn_dense: int = 768
    vocabulary: int = 264
    context: int = 1024
    epsilon: float = 1e-5


class Norm(nn.Module):
    """Root mean square norm, in float32."""

    def __init__(self, size, epsilon):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x):
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight, self.epsilon).to(x.dtype)


class ExpertWeights(nn.Module):
    """One matrix per expert: [E, rows, columns]."""

    def __init__(self, experts, rows, columns, scale):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(experts, rows, columns) * scale)


class Router(nn.Module):
    """The row of each expert that a token is compared with: [E, H]."""

    def __init__(self, experts, hidden):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(experts, hidden) * 0.02)


class Balance(nn.Module):
    """The selection bias of the router, moved by the load and not by the gradient."""

    def __init__(self, experts):
        super().__init__()
        self.register_buffer('bias', torch.zeros(experts))
        self.register_buffer('load', torch.zeros(experts), persistent=False)

    def step(self, rate):
        """Raises the bias of experts with less than the mean load, lowers the others'."""
        self.bias += rate * torch.sign(self.load.mean() - self.load)
        self.load.zero_()


def rotate(x, cos, sin):
    """Rotary position, NEOX pairing (i, i + n/2), on the first dimensions of x [B, heads, T, D]."""
    half = cos.shape[-1]
    a, b, rest = x[..., :half], x[..., half:2 * half], x[..., 2 * half:]
    return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], -1)


class Layer(nn.Module):
    def __init__(self, config, is_moe):
        super().__init__()
        hidden, size = config.hidden, config.head_size
        self.config, self.is_moe = config, is_moe
        self.attn_norm = Norm(hidden, config.epsilon)
        self.attn_q = nn.Linear(hidden, config.heads * size)
        self.attn_k = nn.Linear(hidden, config.kv_heads * size)
        self.attn_v = nn.Linear(hidden, config.kv_heads * size)
        self.attn_q_norm = Norm(size, config.epsilon)
        self.attn_k_norm = Norm(size, config.epsilon)
        self.attn_output = nn.Linear(config.heads * size, hidden, bias=False)
        self.post_attention_norm = Norm(hidden, config.epsilon)
        if is_moe:
            experts, ffn = config.experts, config.ffn_expert
            self.ffn_gate_inp = Router(experts, hidden)
            self.exp_probs_b = Balance(experts)
            self.ffn_gate_exps = ExpertWeights(experts, ffn, hidden, 1 / math.sqrt(hidden))
            self.ffn_up_exps = ExpertWeights(experts, ffn, hidden, 1 / math.sqrt(hidden))
            self.ffn_down_exps = ExpertWeights(experts, hidden, ffn, 1 / math.sqrt(ffn))
            self.ffn_gate_shexp = nn.Linear(hidden, ffn, bias=False)
            self.ffn_up_shexp = nn.Linear(hidden, ffn, bias=False)
            self.ffn_down_shexp = nn.Linear(ffn, hidden, bias=False)
        else:
            self.ffn_gate = nn.Linear(hidden, config.ffn_dense, bias=False)
            self.ffn_up = nn.Linear(hidden, config.ffn_dense, bias=False)
            self.ffn_down = nn.Linear(config.ffn_dense, hidden, bias=False)

    def forward(self, x, cos, sin):
        x = x + self.attention(self.attn_norm(x), cos, sin)
        y = self.post_attention_norm(x)
        if not self.is_moe:
            return x + self.ffn_down(F.silu(self.ffn_gate(y)) * self.ffn_up(y))
        shared = self.ffn_down_shexp(F.silu(self.ffn_gate_shexp(y)) * self.ffn_up_shexp(y))
        return x + shared + self.routed(y.reshape(-1, y.shape[-1])).view_as(x)

    def attention(self, y, cos, sin):
        rows, tokens, _ = y.shape

        def split(z):
            return z.view(rows, tokens, -1, self.config.head_size)

        q = rotate(self.attn_q_norm(split(self.attn_q(y))).transpose(1, 2), cos, sin)
        k = rotate(self.attn_k_norm(split(self.attn_k(y))).transpose(1, 2), cos, sin)
        v = split(self.attn_v(y)).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True, enable_gqa=True)
        return self.attn_output(mixed.transpose(1, 2).reshape(rows, tokens, -1))

    def expert_shares(self, y):
        """How much of each expert a token takes, [tokens, E]: sigmoid router, top experts by score + bias, shares sum to 1."""
        with torch.autocast(y.device.type, enabled=False):
            scores = torch.sigmoid(F.linear(y.float(), self.ffn_gate_inp.weight))
        chosen = (scores + self.exp_probs_b.bias).topk(self.config.experts_used, -1).indices
        taken = scores.gather(-1, chosen)
        taken = taken / taken.sum(-1, keepdim=True)
        shares = torch.zeros_like(scores).scatter(-1, chosen, taken)
        self.exp_probs_b.load += (shares.detach() > 0).float().sum(0)
        return shares

    def routed(self, y):
        """All experts as one wide FFN whose unused parts are multiplied by zero: few large products, which suits a GPU."""
        shares = self.expert_shares(y)
        gate = F.linear(y, self.ffn_gate_exps.weight.flatten(0, 1))  # [tokens, E*F]
        up = F.linear(y, self.ffn_up_exps.weight.flatten(0, 1))
        hidden = F.silu(gate) * up
        hidden = hidden.unflatten(-1, (self.config.experts, -1)) * shares.unsqueeze(-1).to(hidden.dtype)
        down = self.ffn_down_exps.weight.transpose(1, 2).flatten(0, 1)  # [E*F, H]
        return hidden.flatten(1) @ down.to(hidden.dtype)


class Pocket(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.token_embd = nn.Embedding(config.vocabulary, config.hidden)
        nn.init.normal_(self.token_embd.weight, std=0.5)
        self.blk = nn.ModuleList(Layer(config, i >= config.dense_layers) for i in range(config.layers))
        self.output_norm = Norm(config.hidden, config.epsilon)
        self.output = nn.Linear(config.hidden, config.vocabulary, bias=False)

    def forward(self, ids):
        """Logits [B, T, vocabulary] of ids [B, T]."""
        size, device = self.config.rope_size, ids.device
        frequencies = self.config.rope_base ** (-torch.arange(0, size, 2, device=device) / size)
        angles = torch.arange(ids.shape[1], device=device)[:, None] * frequencies
        cos, sin = angles.cos(), angles.sin()
        x = self.token_embd(ids)
        for layer in self.blk:
            x = layer(x, cos, sin)
        return self.output(self.output_norm(x))

    def balances(self):
        """(layer index, balance) of every MoE layer."""
        return [(i, layer.exp_probs_b) for i, layer in enumerate(self.blk) if layer.is_moe]
