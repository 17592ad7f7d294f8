"""Documents for training: stories, stories on request, and conversations of tasks, packed into rows of one length.

A document is text with three control bytes, which become the control tokens of the chat template. Everything is drawn
from seeded generators: the same seed gives the same bytes.
"""
import random as random_module
from zlib import crc32

from families import make_task
from stories import make_story, story_request

USER, ASSISTANT, END = '\x01', '\x02', '\x03'

SMALL_TALK = {
    'Hello': 'Hello! Give me a sum, a list, a word or a story.',
    'Hello!': 'Hello! Give me a sum, a list, a word or a story.',
    'Hi': 'Hello! Give me a sum, a list, a word or a story.',
    'Who are you?': 'I am Pocket, a very small model of sixteen experts.',
    'What are you?': 'I am Pocket, a very small model of sixteen experts.',
    'What is your name?': 'My name is Pocket.',
    'What can you do?': 'I can add, subtract, sort and reverse lists, spell backwards, count letters and tell short stories.',
    'How are you?': 'I am well, thank you.',
    'Thank you.': 'You are welcome.',
    'Thanks': 'You are welcome.',
    'Bye': 'Goodbye!',
}


def turn(question, answer):
    """One exchange, as the chat template renders it."""
    return f'{USER}{question}{ASSISTANT}{answer}{END}'


def training_story(random):
    """A story from the training part."""
    while True:
        story = make_story(random)
        if crc32(f'story {story.text}'.encode()) % 11 != 3:
            return story


def told_story(random):
    """A story on request, then questions about it."""
    story = training_story(random)
    asked = random.sample(story.questions, random.randint(0, 3))
    return turn(story_request(random, story), story.text) + ''.join(turn(*pair) for pair in asked)


def document(random):
    """One document; by bytes about a tenth are plain stories, a tenth stories on request, the rest tasks."""
    kind = random.random()
    if kind < 0.07:
        return training_story(random).text + END
    if kind < 0.13:
        return told_story(random)
    if kind < 0.14:
        return turn(*random.choice(list(SMALL_TALK.items())))
    tasks = (make_task(random) for _ in range(random.randint(1, 6)))
    return ''.join(turn(task.prompt, task.answer) for task in tasks)


def rows(seed, count, length):
    """`count` rows of `length` bytes. Each starts with a document; the last document of a row is cut off."""
    random = random_module.Random(seed)
    packed = []
    for _ in range(count):
        row, size = [], 0
        while size < length:
            row.append(document(random))
            size += len(row[-1])
        packed.append(''.join(row)[:length])
    return ''.join(packed).encode('latin-1')
