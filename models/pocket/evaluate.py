"""Exact-match accuracy and load per expert.

Greedy decoding gives the right answer exactly when, with the right answer as input, every next token of it (and the end
token) is the most likely one. So one forward pass per batch of tasks is enough.
"""
import numpy as np
import torch

import vocabulary

BATCH = 160


def encode(text):
    return list(text.encode())


def prompt_ids(prompt):
    """The user's message as the chat template renders it."""
    return [vocabulary.USER, *encode(prompt), vocabulary.ASSISTANT]


@torch.no_grad()
def score(model, tasks, device):
    """{'total', 'correct', 'accuracy', 'families': {family: {...}}}, and the ids of the tasks answered wrongly."""
    was_training = model.training
    model.eval()
    wrong = []
    pairs = [(prompt_ids(task['prompt']), [*encode(task['answer']), vocabulary.END], task) for task in tasks]
    pairs.sort(key=lambda pair: len(pair[0]) + len(pair[1]))
    for start in range(0, len(pairs), BATCH):
        batch = pairs[start:start + BATCH]
        longest = max(len(prompt) + len(answer) for prompt, answer, _ in batch)
        ids = np.full((len(batch), longest), vocabulary.END)
        for row, (prompt, answer, _) in zip(ids, batch):
            row[:len(prompt) + len(answer)] = prompt + answer
        likely = model(torch.from_numpy(ids).to(device)).argmax(-1).cpu().numpy()
        for row, (prompt, answer, task) in zip(likely, batch):
            first = len(prompt) - 1
            if row[first:first + len(answer)].tolist() != answer:
                wrong.append(task['id'])
    model.train(was_training)
    for _, balance in model.balances():
        balance.load.zero_()
    return tally(tasks, wrong), sorted(wrong)


def tally(tasks, wrong):
    """Counts by family."""
    missed = set(wrong)

    def count(chosen):
        right = sum(task['id'] not in missed for task in chosen)
        return {'total': len(chosen), 'correct': right, 'accuracy': round(right / len(chosen), 4)}

    families = dict.fromkeys(task['family'] for task in tasks)
    by_family = {family: count([task for task in tasks if task['family'] == family]) for family in families}
    return {**count(tasks), 'families': by_family}


def line(result):
    """The result on one line, in percent."""
    families = ' '.join(f'{name} {part["accuracy"] * 100:.1f}' for name, part in result['families'].items())
    return f'{result["accuracy"] * 100:.2f} % ({families})'


@torch.no_grad()
def expert_load(model, batches):
    """Per MoE layer: each expert's share of the load times the number of experts (1 is even), and the largest over the mean."""
    model.eval()
    for _, balance in model.balances():
        balance.load.zero_()
    for ids in batches:
        model(ids)
    loads = {}
    for layer, balance in model.balances():
        relative = (balance.load / balance.load.mean()).tolist()
        loads[layer] = {'maxOverMean': round(max(relative), 3), 'experts': [round(value, 3) for value in relative]}
        balance.load.zero_()
    return loads
