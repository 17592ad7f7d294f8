"""Trains the pocket model on one GPU and writes pocket.gguf and log.json.

    python3 train.py OUT --steps 10250        the same training again
    python3 train.py OUT --seconds 500        as many steps as fit into the time

The first four fifths of the steps use rows of 512 tokens. The last fifth uses rows of 1,024 tokens and rounds the weights
to the formats of the file in every step, so that quantisation costs nothing.
"""
import argparse
import json
import math
import os
import time
from dataclasses import asdict
from multiprocessing import Pool

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import corpus
import gguf
import vocabulary
from evaluate import expert_load, line, score
from heldout import held_out_tasks
from model import Config, Pocket
from quant import RoundedWeights

SEED = 1
VALIDATION_SEED = 7  # tasks shown during training; the final figures come from heldout.SEED
TOKENS_PER_ROW = 512
LONG_ROW = 1024
ROUNDED_FROM = 0.8  # part of the steps after which weights are rounded and rows are long
PEAK_RATE = 2e-3
WARMUP = 200
BALANCE_EVERY, BALANCE_RATE = 20, 3e-3
REPORT_EVERY = 100
CHECK_EVERY = 1000
USER_TEXT_WEIGHT = 0.1  # questions are random, so their text is hardly worth learning


def chunk(arguments):
    return corpus.rows(*arguments)


def make_rows(pool, first_seed, count, tokens, per_chunk=2000):
    """`count` rows of tokens + 1 bytes as [count, tokens + 1]."""
    sizes = [min(per_chunk, count - start) for start in range(0, count, per_chunk)]
    parts = pool.map(chunk, [(first_seed + i, size, tokens + 1) for i, size in enumerate(sizes)])
    return np.frombuffer(b''.join(parts), np.uint8).reshape(count, tokens + 1)


class Rows:
    """Rows on the device, given out in order."""

    def __init__(self, rows, device):
        self.rows = torch.from_numpy(rows.copy()).to(device)
        self.id_of_byte = torch.from_numpy(vocabulary.ID_OF_BYTE).to(device)
        self.next = 0

    def batch(self, size):
        index = (torch.arange(size, device=self.rows.device) + self.next) % len(self.rows)
        self.next += size
        return self.id_of_byte[self.rows[index].long()]


def target_weights(ids):
    """Weight of each target: 1 for stories and answers, less inside a user's message and for the start of a document."""
    is_control = (ids >= vocabulary.USER) & (ids <= vocabulary.END)
    places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    last_control = torch.where(is_control, places, torch.zeros_like(places)).cummax(1).values
    is_user_text = ids.gather(1, last_control) == vocabulary.USER
    return torch.where(is_user_text | (ids == vocabulary.END), USER_TEXT_WEIGHT, 1.0)


def rate_at(step, total):
    """Warm-up, then a cosine down to 2 % of the peak."""
    progress = min(1, step / total)
    return PEAK_RATE * min(1, (step + 1) / WARMUP) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


def make_optimizer(model, device):
    groups = [
        {'params': [p for p in model.parameters() if p.ndim >= 2], 'weight_decay': 0.05},
        {'params': [p for p in model.parameters() if p.ndim < 2], 'weight_decay': 0.0},
    ]
    return torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.95), fused=device == 'cuda')


class Training:
    """The model, its optimizer and what has been logged so far."""

    def __init__(self, model, device, batch):
        self.model, self.device, self.rows_per_step = model, device, batch
        self.compiled = torch.compile(model, dynamic=False) if device == 'cuda' else model
        self.optimizer = make_optimizer(model, device)
        self.rounding = RoundedWeights(model)
        self.curve, self.checks = [], []
        self.tokens = 0
        self.loss_sum = torch.zeros((), device=device)

    def loss(self, rows, tokens):
        ids = rows.batch(self.rows_per_step * TOKENS_PER_ROW // tokens)
        inputs, targets = ids[:, :-1], ids[:, 1:]
        self.tokens += targets.numel()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == 'cuda'):
            logits = self.compiled(inputs)
        each = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction='none')
        weights = target_weights(inputs).flatten()
        return (each * weights).sum() / weights.sum()

    def step(self, index, total, rows, tokens, is_rounded):
        for group in self.optimizer.param_groups:
            group['lr'] = rate_at(index, total)
        self.optimizer.zero_grad(set_to_none=True)
        if is_rounded:
            with self.rounding:
                loss = self.loss(rows, tokens)
                loss.backward()
        else:
            loss = self.loss(rows, tokens)
            loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.loss_sum += loss.detach()
        if index % BALANCE_EVERY == BALANCE_EVERY - 1:
            self.balance(BALANCE_RATE * (1 - 0.9 * index / total))

    @torch.no_grad()
    def balance(self, rate):
        for _, balance in self.model.balances():
            balance.step(rate)

    def report(self, step, seconds):
        mean = self.loss_sum.item() / REPORT_EVERY
        self.loss_sum.zero_()
        self.curve.append([step, round(seconds, 1), round(mean, 4)])
        if step % 500 == 0:
            print(f'step {step} loss {mean:.4f} {seconds:.0f} s', flush=True)

    def check(self, step, tasks):
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == 'cuda'):
            result, _ = score(self.model, tasks, self.device)
        self.checks.append({'step': step, **result})
        print(f'step {step} held-out {line(result)}', flush=True)


def steps_that_fit(seconds_left, seconds_per_step):
    """A whole number of 250 steps; the rounded part is slower and compiles anew."""
    return max(250, int((seconds_left - 45) / (seconds_per_step * 1.05) / 250) * 250)


def train(training, rows, long_rows, arguments, started):
    total = arguments.steps or 10 ** 9
    validation = held_out_tasks(VALIDATION_SEED, 40)
    begun = time.time()
    measured_from = None
    step = 0
    while step < total:
        is_rounded = step >= int(total * ROUNDED_FROM)
        if is_rounded:
            training.step(step, total, long_rows, LONG_ROW, True)
        else:
            training.step(step, total, rows, TOKENS_PER_ROW, False)
        step += 1
        if not arguments.steps and step in (50, 150):
            training.loss_sum.item()  # waits for the device
            if step == 150:
                per_step = (time.time() - measured_from) / 100
                total = steps_that_fit(arguments.seconds - (time.time() - started), per_step)
                print(f'{per_step * 1000:.1f} ms per step, {total} steps', flush=True)
            measured_from = time.time()
        if step % REPORT_EVERY == 0:
            training.report(step, time.time() - begun)
        if step % CHECK_EVERY == 0 or step == int(total * ROUNDED_FROM):
            training.check(step, validation)
        if step == int(total * ROUNDED_FROM):
            gguf.write(f'{arguments.out}/pocket.gguf', training.model.config, training.model.state_dict())
        if not arguments.steps and time.time() - started > arguments.seconds + 25:
            print('out of time', flush=True)
            break
    return step, time.time() - begun


def final_figures(training, device):
    """Accuracy of the exact and of the rounded weights on the held-out tasks, in float32, and the load per expert."""
    torch.set_float32_matmul_precision('highest')
    model, tasks = training.model, held_out_tasks()
    exact, _ = score(model, tasks, device)
    print('float     ', line(exact), flush=True)
    with training.rounding:
        quantised, wrong = score(model, tasks, device)
        print('quantised ', line(quantised), flush=True)
        fresh = Rows(make_rows_here(10_000_000, 512), device)
        load = expert_load(model, [fresh.batch(64)[:, :-1] for _ in range(8)])
    print('load max/mean', {layer: value['maxOverMean'] for layer, value in load.items()}, flush=True)
    return {'accuracy': {'float': exact, 'quantised': quantised, 'wrong': wrong}, 'expertLoad': load}


def make_rows_here(seed, count):
    data = corpus.rows(seed, count, TOKENS_PER_ROW + 1)
    return np.frombuffer(data, np.uint8).reshape(count, -1)


def save_state(out, model):
    """The exact weights in half precision, in files of at most 15 MB, to go on from with --from."""
    parts, size = [{}], 0
    for name, tensor in model.state_dict().items():
        size += tensor.numel() * 2
        if size > 15_000_000:
            parts.append({})
            size = tensor.numel() * 2
        parts[-1][name] = tensor.half().cpu()
    for i, part in enumerate(parts):
        torch.save(part, f'{out}/state-{i}.pt')


def load_state(folder, model):
    for name in sorted(os.listdir(folder)):
        if name.startswith('state-'):
            model.load_state_dict(torch.load(f'{folder}/{name}'), strict=False)


def read_arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument('out')
    parser.add_argument('--steps', type=int, help='exact number of steps')
    parser.add_argument('--seconds', type=float, default=500, help='time for everything but the final evaluation')
    parser.add_argument('--batch', type=int, default=128, help='rows of 512 tokens per step')
    parser.add_argument('--rows', type=int, default=800_000, help='rows of 512 tokens in the corpus')
    parser.add_argument('--from', dest='start', help='folder with state-N.pt files to start from')
    return parser.parse_args()


def main():
    started = time.time()
    arguments = read_arguments()
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    with Pool(os.cpu_count()) as pool:
        short = make_rows(pool, 0, arguments.rows, TOKENS_PER_ROW)
        long = make_rows(pool, 1_000_000, arguments.rows // 6, LONG_ROW)
    print(f'corpus {(short.nbytes + long.nbytes) / 1e6:.0f} MB {time.time() - started:.0f} s', flush=True)
    torch.manual_seed(SEED)
    torch.set_float32_matmul_precision('high')
    model = Pocket(Config()).to(device)
    if arguments.start:
        load_state(arguments.start, model)
    parameters = sum(p.numel() for p in model.parameters())
    print(f'{parameters / 1e6:.2f} M parameters on {torch.cuda.get_device_name() if device == "cuda" else "CPU"}', flush=True)
    training = Training(model, device, arguments.batch)
    steps, seconds = train(training, Rows(short, device), Rows(long, device), arguments, started)
    gguf.write(f'{arguments.out}/pocket.gguf', model.config, model.state_dict())
    log = {
        'config': asdict(model.config),
        'parameters': parameters,
        'device': torch.cuda.get_device_name() if device == 'cuda' else 'CPU',
        'torch': torch.__version__,
        'seeds': {'model': SEED, 'corpus': [0, 1_000_000], 'validation': VALIDATION_SEED},
        'steps': steps,
        'tokens': training.tokens,
        'seconds': round(seconds, 1),
        'fileBytes': os.path.getsize(f'{arguments.out}/pocket.gguf'),
        'curve': training.curve,
        'checks': training.checks,
        **final_figures(training, device),
    }
    with open(f'{arguments.out}/log.json', 'w', encoding='utf-8') as file:
        json.dump(log, file)
    save_state(arguments.out, model)
    print(f'{steps} steps, {training.tokens / 1e6:.0f} M tokens, {time.time() - started:.0f} s in all', flush=True)


if __name__ == '__main__':
    main()
