"""Writes the held-out tasks: python3 heldout.py tasks.jsonl"""
import json
import random as random_module
import sys

from families import MAKERS, make_task

SEED = 2026
PER_FAMILY = 160


def held_out_tasks(seed=SEED, per_family=PER_FAMILY):
    """The same number of tasks of every family, none of them twice, none of them in training."""
    random = random_module.Random(seed)
    tasks = []
    for maker in MAKERS:
        seen = set()
        while len(seen) < per_family:
            task = make_task(random, held_out=True, maker=maker)
            if task.prompt not in seen:
                seen.add(task.prompt)
                name = f'{task.family}-{len(seen):03}'
                tasks.append({'id': name, 'family': task.family, 'prompt': task.prompt, 'answer': task.answer})
    return tasks


def main():
    with open(sys.argv[1], 'w', encoding='utf-8') as file:
        for task in held_out_tasks():
            file.write(json.dumps(task) + '\n')


if __name__ == '__main__':
    main()
