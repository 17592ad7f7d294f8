"""The task families: each makes a question with one right answer, in several phrasings, and says what must be held out."""
from dataclasses import dataclass
from zlib import crc32

from stories import make_story
from words import ALPHABET, any_word, list_word


@dataclass
class Task:
    """A question, its answer, and the content that the held-out rule looks at (the same in every phrasing)."""
    family: str
    prompt: str
    answer: str
    content: str

    @property
    def is_held_out(self):
        """One part in eleven is never seen in training, whatever the phrasing."""
        return crc32(self.content.encode()) % 11 == 3


def number(random):
    """0 to 999, small ones as often as large ones."""
    return random.randrange(random.choice((10, 100, 100, 1000)))


def numbers(random, least=2):
    """A list of numbers, and its text with commas or with spaces."""
    top = random.choice((10, 100, 100, 100, 1000))
    values = [random.randrange(top) for _ in range(random.randint(least, 6))]
    separator = random.choice((', ', ', ', ' '))
    return values, separator


def joined(values, separator):
    return separator.join(map(str, values))


def add(random):
    a, b = number(random), number(random)
    plus = random.choice((' + ', ' + ', '+', ' plus '))
    prompt = random.choice([
        f'What is {a}{plus}{b}?', f'What is {a}{plus}{b}?', f'How much is {a}{plus}{b}?', f'Calculate {a}{plus}{b}.',
        f'{a}{plus}{b}', f'{a}{plus}{b} =', f'{a}{plus}{b} = ?', f'Add {a} and {b}.', f'What is the sum of {a} and {b}?',
    ])
    return Task('add', prompt, str(a + b), f'add {min(a, b)} {max(a, b)}')


def subtract(random):
    a, b = number(random), number(random)
    if a < b and random.random() < 0.8:
        a, b = b, a
    minus = random.choice((' - ', ' - ', '-', ' minus '))
    prompt = random.choice([
        f'What is {a}{minus}{b}?', f'What is {a}{minus}{b}?', f'How much is {a}{minus}{b}?', f'Calculate {a}{minus}{b}.',
        f'{a}{minus}{b}', f'{a}{minus}{b} =', f'{a}{minus}{b} = ?', f'Take {b} from {a}.', f'Subtract {b} from {a}.',
    ])
    return Task('subtract', prompt, str(a - b), f'subtract {a} {b}')


def sort(random):
    values, separator = numbers(random)
    text = joined(values, separator)
    falls = random.random() < 0.2
    if falls:
        prompt = random.choice([f'Sort {text} from largest to smallest.', f'Sort {text} in descending order.',
                                f'Sort these numbers from largest to smallest: {text}.'])
    else:
        prompt = random.choice([
            f'Sort {text}.', f'Sort {text}.', f'Sort these numbers: {text}.', f'Sort the numbers {text}.',
            f'Sort the list: {text}.', f'Put these numbers in order: {text}.', f'Sort {text} from smallest to largest.',
            f'Sort {text} in ascending order.',
        ])
    ordered = sorted(values)
    answer = joined(ordered[::-1] if falls else ordered, separator)
    return Task('sort', prompt, answer, f'sort {ordered}')


def reverse(random):
    if random.random() < 0.2:
        items, _ = numbers(random)
    else:
        items = [list_word(random) for _ in range(random.randint(2, 5))]
    separator = random.choice((', ', ', ', ', ', ' '))
    text = joined(items, separator)
    prompt = random.choice([
        f'Reverse the list: {text}.', f'Reverse the list: {text}.', f'Reverse this list: {text}.', f'Reverse the list {text}.',
        f'Put this list in reverse order: {text}.', f'Write this list backwards: {text}.', f'Reverse the order of {text}.',
    ])
    return Task('reverse', prompt, joined(items[::-1], separator), f'reverse {items}')


def quoted(random, word):
    """The word, now and then in quotation marks."""
    return random.choice((word, word, word, word, f'"{word}"', f"'{word}'"))


def spell(random):
    word = any_word(random)
    text = quoted(random, word)
    prompt = random.choice([
        f'Spell {text} backwards.', f'Spell {text} backwards.', f'Spell the word {text} backwards.',
        f'Write {text} backwards.', f'Write the word {text} backwards.', f'What is {text} spelled backwards?',
        f'How do you spell {text} backwards?', f'Reverse the word {text}.', f'Reverse the letters of {text}.',
    ])
    return Task('spell', prompt, word[::-1], f'word {word}')


def count(random):
    word = any_word(random)
    text = quoted(random, word)
    if random.random() < 0.1:
        prompt = random.choice([f'How many letters are in {text}?', f'How many letters does {text} have?'])
        return Task('count', prompt, str(len(word)), f'word {word}')
    letter = random.choice(word) if random.random() < 0.75 else random.choice(ALPHABET)
    shown = random.choice((letter, letter, letter, f'"{letter}"'))
    prompt = random.choice([
        f'How many letters {shown} are in {text}?', f'How many letters {shown} are in {text}?',
        f'How many {shown} are in {text}?', f"How many {letter}'s are in {text}?", f"How many {letter}'s are there in {text}?",
        f'How many {shown} are there in the word {text}?', f'How many times does {shown} appear in {text}?',
        f'How many times does the letter {shown} appear in {text}?', f'Count the letter {shown} in {text}.',
        f'How many {letter} in {text}?', f'In the word {text}, how many {shown} are there?',
    ])
    return Task('count', prompt, str(word.count(letter)), f'word {word}')


def extreme(random, family):
    """The largest or the smallest of some numbers."""
    largest = family == 'largest'
    values, separator = numbers(random)
    text = joined(values, separator)
    word = random.choice(('largest', 'largest', 'biggest') if largest else ('smallest', 'smallest', 'lowest'))
    forms = [
        f'Which is the {word} of {text}?', f'Which is the {word} of {text}?', f'What is the {word} of {text}?',
        f'What is the {word} number: {text}?', f'Which number is the {word}: {text}?', f'Find the {word} of {text}.',
        f'Find the {word} number: {text}.',
    ]
    if len(values) == 2:
        a, b = values
        compared = 'larger' if largest else 'smaller'
        forms += [f'Which is {compared}, {a} or {b}?', f'Which number is {compared}, {a} or {b}?']
    answer = max(values) if largest else min(values)
    return Task(family, random.choice(forms), str(answer), f'{family} {sorted(values)}')


def largest(random):
    return extreme(random, 'largest')


def smallest(random):
    return extreme(random, 'smallest')


def story(random):
    told = make_story(random)
    question, answer = random.choice(told.questions)
    gap = random.choice((' ', ' ', '\n', '\n\n'))
    return Task('story', f'{told.text}{gap}{question}', answer, f'story {told.text}')


# How often each family is drawn in training: the hard ones more often.
WEIGHTS = {add: 14, subtract: 15, sort: 14, reverse: 9, spell: 13, count: 19, largest: 5, smallest: 5, story: 6}
MAKERS, SHARES = list(WEIGHTS), list(WEIGHTS.values())
FAMILIES = [maker.__name__ for maker in MAKERS]


def hurried(random, prompt):
    """The same question as typed in a hurry: without capital, without the closing mark, or both."""
    if random.random() < 0.15:
        prompt = prompt[0].lower() + prompt[1:]
    if random.random() < 0.15 and prompt[-1] in '.?' and not prompt.endswith('= ?'):
        prompt = prompt[:-1]
    return prompt


def make_task(random, held_out=False, maker=None):
    """A task of the given family (or of any) from the training part, or from the held-out part."""
    while True:
        task = (maker or random.choices(MAKERS, SHARES)[0])(random)
        if task.is_held_out == held_out:
            task.prompt = hurried(random, task.prompt)
            return task
